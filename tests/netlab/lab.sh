# shellcheck shell=sh disable=SC2034,SC2154
# lab.sh - what the tests of this folder share. A test defines functions whose names state facts,
# and ends with `lab_run NAME...`. Each of them runs in a laboratory of its own (netlab.sh), all at
# the same time, so that those that wait for the network's slow answers wait together.
#
# Inside one:
#     start a client                  a driver (tests/peers/driver.c) on side a, called client
#     tell client 'connect c ...'     one command; its answer is in $answer
#     say client ..., hear client     the same in two halves, with something happening between
#     want OK 0 1000                  the answer's error, and its milliseconds from and to
#     field addr                      a value of the answer
#     lab partition                   netlab.sh
set -eu
lab_here=$(dirname "$(readlink -f "$0")")
lab_inside=${2:-} # the test to run, in the script that was started again inside a sandbox
[ "${1:-}" = --inside ] || lab_inside=
LAB_LIMIT_S=50

lab() { sh "$lab_here/netlab.sh" "$@"; }
fail() { echo "  $lab_name: $*"; exit 1; }
skip() { echo "SKIP $lab_name: $*"; exit 77; }

# Descriptors 3 to 8: a pair of pipes for each driver.
start() {
    [ "${lab_fd:-3}" -le 7 ] || fail "too many drivers"
    mkfifo "$lab_tmp/$2.in" "$lab_tmp/$2.out"
    # shellcheck disable=SC2086
    lab exec "$1" ${WRAP:-} $lab_driver - <"$lab_tmp/$2.in" >"$lab_tmp/$2.out" &
    eval "lab_in_$2=${lab_fd:-3} lab_out_$2=$((${lab_fd:-3} + 1))"
    eval "exec ${lab_fd:-3}>\"\$lab_tmp/$2.in\" $((${lab_fd:-3} + 1))<\"\$lab_tmp/$2.out\""
    lab_fd=$((${lab_fd:-3} + 2))
}
say() {
    eval "lab_to=\$lab_in_$1"
    # Unquoted, so that a command may be written over several lines.
    # shellcheck disable=SC2086
    (set -f; eval "echo \$2 >&$lab_to")
    lab_who=$1 lab_what=$2 lab_said="$1: $2" lab_again=0
}
hear() {
    eval "lab_from=\$lab_out_$1"
    eval "read -r answer <&$lab_from" || fail "driver $1 ended"
    case "$answer" in '?'*) fail "misused driver: $lab_said: $answer" ;; esac
}
tell() {
    say "$1" "$2"
    hear "$1"
    lab_again=2
}

field() {
    for lab_word in $answer; do
        case "$lab_word" in "$1="*) echo "${lab_word#*=}"; return ;; esac
    done
    echo "(no $1)"
}
# want ERROR[|ERROR...] [FROM_MS [TO_MS]]: that the machine was busy elsewhere for a second is no
# fault of netio's, so a command whose answer was right but late is told again.
want() {
    while :; do
        case "|$1|" in
            *"|${answer%% *}|"*) ;;
            *) fail "wanted $1 of '$lab_said', got '$answer'" ;;
        esac
        lab_ms=$(field ms)
        [ "$lab_ms" -ge "${2:-0}" ] || fail "wanted it after $2 ms of '$lab_said', got '$answer'"
        [ "$lab_ms" -gt "${3:-60000}" ] || return 0
        [ "$lab_again" -gt 0 ] || fail "wanted it within $3 ms of '$lab_said', got '$answer'"
        lab_tries=$((lab_again - 1))
        tell "$lab_who" "$lab_what"
        lab_again=$lab_tries
    done
}
# Milliseconds of the monotonic clock, and a wait for a line of a file that a program writes.
now() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }
until_line() { until grep -q "$1" "$2" 2>/dev/null; do sleep 0.02; done; }
# same WHAT WANTED GOT
same() { [ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3' ($answer)"; }
# asked NAME COMMAND [FROM_MS [TO_MS]]: it must succeed.
asked() { tell "$1" "$2"; want OK "${3:-0}" "${4:-60000}"; }

# A connection over the link: server's s, client's c. Leaves the listener l open.
connected() {
    start b server
    start a client
    asked server "listen l ${1:-10.200.0.2:5000}"
    asked client "connect c ${1:-10.200.0.2:5000} 5000"
    asked server "accept s l 5000"
}

lab_run_inside() {
    lab_name=$1
    lab_tmp=$lab_out/$1.files
    mkdir "$lab_tmp"
    lab up || skip "no namespaces with a link between them"
    "$1"
}

# LAB_ONLY: the name of one test, to run it alone.
lab_run() {
    if [ -n "$lab_inside" ]; then lab_run_inside "$lab_inside"; exit 0; fi
    if [ -n "${LAB_ONLY:-}" ]; then set -- "$LAB_ONLY"; fi
    for lab_tool in ip nft unshare ss python3; do
        command -v $lab_tool >/dev/null || { echo "SKIP no $lab_tool"; exit 77; }
    done
    if ! lab sandbox true 2>/dev/null; then echo "SKIP no right to make namespaces"; exit 77; fi
    lab_driver=$(sh "$lab_here/../peers/driver.sh") || { echo "FAIL no driver"; exit 1; }
    export lab_driver
    lab_out=$(mktemp -d)
    export lab_out
    trap 'rm -rf "$lab_out"' EXIT
    for lab_test; do
        (lab_code=0
        timeout -k 1 $LAB_LIMIT_S sh "$lab_here/netlab.sh" sandbox \
            sh "$0" --inside "$lab_test" >"$lab_out/$lab_test" 2>&1 || lab_code=$?
        echo $lab_code >"$lab_out/$lab_test.code") &
    done
    wait
    lab_passed=0 lab_failed=0 lab_skipped=0
    for lab_test; do
        cat "$lab_out/$lab_test"
        case "$(cat "$lab_out/$lab_test.code")" in
            0) lab_passed=$((lab_passed + 1)) ;;
            77) lab_skipped=$((lab_skipped + 1)) ;;
            124|137) echo "  $lab_test: no end within $LAB_LIMIT_S s"
                lab_failed=$((lab_failed + 1)) ;;
            *) echo "  failed: $lab_test"; lab_failed=$((lab_failed + 1)) ;;
        esac
    done
    if [ $lab_failed -gt 0 ]; then
        echo "FAIL $lab_failed of $((lab_passed + lab_failed + lab_skipped))"; exit 1
    fi
    if [ $lab_passed -eq 0 ]; then exit 77; fi
    echo "PASS $lab_passed"
}
