#!/bin/sh
# After a run of ctest: what was skipped, each reason once with the tests that gave it.
#
#     skipped.sh BUILD-FOLDER
set -u
log=$1/Testing/Temporary/LastTest.log
[ -f "$log" ] || exit 0

# The log has for every entry "N/M Test: NAME", then its output. A reason is what follows "skipped:"
# or "SKIP" at the beginning of a line; in a test program's output it stands below the test's name.
awk '
/^[0-9]+\/[0-9]+ Test: / { entry = $3; test = ""; next }
/^  [a-z_0-9]+\.[a-z_0-9]+$/ { test = $1; next }
/^ *(skipped:|SKIP) / {
    reason = $0
    sub(/^ *(skipped:|SKIP) /, "", reason)
    where = (test == "") ? entry : entry " " test
    if (reason in wheres) {
        wheres[reason] = wheres[reason] "\n        " where
    } else {
        order[++count] = reason
        wheres[reason] = "        " where
    }
    total++
}
END {
    if (total == 0) exit
    printf "\n%d skipped:\n", total
    for (i = 1; i <= count; i++) {
        lines = split(wheres[order[i]], w, "\n")
        printf "    %s\n", order[i]
        for (j = 1; j <= lines && j <= 4; j++) print w[j]
        if (lines > 4) printf "        and %d more\n", lines - 4
    }
    print ""
}' "$log"
