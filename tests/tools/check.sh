# Sourced by the scripts of tests/compile: each makes many small checks and ends with `finish`.
#
#     try "what it shows" COMMAND...        it must succeed; what it said is in $work/log then
#     deny "what it shows" COMMAND...       it must fail; what it said is in $work/errors then
#     skip "why"                            end here, nothing could be checked
#
# Sets $root (the source tree), $work (a folder of this script, removed at the end) and $warnings.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/netio-check.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0

warnings="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Werror"

try()
{
    check_what=$1
    shift
    if "$@" >"$work/log.new" 2>&1; then
        mv "$work/log.new" "$work/log"
        passed=$((passed + 1))
    else
        mv "$work/log.new" "$work/log"
        failed=$((failed + 1))
        printf 'FAILED: %s\n    $ %s\n' "$check_what" "$*"
        head -n 40 "$work/log" | sed 's/^/    /'
    fi
}

deny()
{
    check_what=$1
    shift
    if "$@" >"$work/errors" 2>&1; then
        failed=$((failed + 1))
        printf 'FAILED: it should not have worked: %s\n    $ %s\n' "$check_what" "$*"
    else
        passed=$((passed + 1))
    fi
}

skip()
{
    echo "skipped: $1"
    exit 77
}

need()
{
    for tool; do
        command -v "$tool" >/dev/null 2>&1 || skip "there is no $tool here"
    done
}

finish()
{
    if [ "$failed" -gt 0 ]; then
        echo "FAIL $failed of $((passed + failed))"
        exit 1
    fi
    echo "PASS $passed"
    exit 0
}
