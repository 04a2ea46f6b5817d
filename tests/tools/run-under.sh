#!/bin/sh
# Run one test program in some surroundings, and believe it only if it says so itself.
#
#     run-under.sh native|sanitizer|valgrind|wine|qemu-CPU PROGRAM [ARGUMENTS]
#
# A program passes if it exits with 0 and its last line is "PASS n". Exit codes alone do not do: Wine
# gives 0 for some crashes, cuts codes to 8 bits, and a program that ends early by exit(0) has not
# passed either. 77 is handed on: nothing could be run.
set -u
kind=$1 program=$2
shift 2

out=$(mktemp "${TMPDIR:-/tmp}/netio-run.XXXXXX") || exit 1
trap 'rm -f "$out" "$out".*' EXIT
trap 'exit 1' HUP INT TERM

unset NETIO_TEST_UNDER
case $kind in
native)
    set -- "$program" "$@"
    ;;
sanitizer)
    # With more than 28 random bits in addresses, the run-time libraries of gcc 12 and clang 14 die
    # at start, now and then or always. Containers may forbid switching the randomness off.
    bits=$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo unknown)
    echo "vm.mmap_rnd_bits: $bits"
    set -- "$program" "$@"
    case $bits in
    unknown | [0-9] | 1? | 2[0-8]) ;;
    *) setarch -R true 2>/dev/null && set -- setarch -R "$@" ;;
    esac
    # Tests run out of memory on purpose, so a failed allocation is no error of the program.
    export ASAN_OPTIONS="allocator_may_return_null=1:detect_stack_use_after_return=1"
    export UBSAN_OPTIONS="print_stacktrace=1"
    export TSAN_OPTIONS="second_deadlock_stack=1"
    ;;
valgrind)
    export NETIO_TEST_UNDER=valgrind
    set -- valgrind --log-file="$out.valgrind" --error-exitcode=99 --leak-check=full \
        --errors-for-leak-kinds=all --track-fds=yes "$program" "$@"
    ;;
wine)
    . "$(dirname "$0")/wine-env.sh"
    set -- timeout 200 "$wine" "$program" "$@"
    ;;
qemu-*)
    export NETIO_TEST_UNDER=qemu
    set -- "$kind" "$program" "$@"
    ;;
*)
    echo "$0: unknown surroundings: $kind" >&2
    exit 2
    ;;
esac

if [ "$kind" = wine ]; then
    # No pipe: Wine's own background processes may keep it open after the program's end.
    "$@" >"$out.raw" 2>&1 </dev/null
    status=$?
    tr -d '\r' <"$out.raw" | tee "$out"
else
    # Shown while it runs, so that a test that hangs shows how far it came.
    {
        "$@" 2>&1
        echo $? >"$out.status"
    } | tee "$out"
    status=$(cat "$out.status" 2>/dev/null || echo 1)
fi

if [ "$kind" = valgrind ]; then
    # Open at the end and not inherited: valgrind reports them but does not count them as errors.
    # Children of the program write to the same log; only its own process ends tidily.
    left=$(awk 'NR == 1 { own = $1 }
                $1 != own { next }
                /Open (AF_|file |file descriptor)/ { open = $0; next }
                open != "" && /inherited from parent/ { open = ""; next }
                open != "" { print open; open = "" }' "$out.valgrind")
    if [ "$status" = 99 ] || [ -n "$left" ]; then
        cat "$out.valgrind"
        [ -n "$left" ] && echo "descriptors left open: $left"
        exit 1
    fi
fi
[ "$status" = 77 ] && exit 77
if [ "$status" != 0 ]; then
    echo "exit code $status"
    exit 1
fi
case $(tail -n 1 "$out") in
"PASS "[0-9]*) exit 0 ;;
esac
echo "exit code 0, but the last line is not \"PASS n\""
exit 1
