#!/bin/sh
# Racing connect (RFC 8305) past addresses that never answer, seen on the wire.
. "$(dirname "$0")/lab.sh"

# Nets behind side b, where all that arrives vanishes.
dead_nets() {
    ip -n lab-a route add 10.30.0.0/24 via 10.200.0.2
    ip -n lab-a -6 route add fd30::/64 via fd20::2
    ip -n lab-b route add blackhole 10.30.0.0/24
    ip -n lab-b -6 route add blackhole fd30::/64
}
server() {
    dead_nets
    start b server
    asked server 'listen l :5000'
    start a client
    # Each side now knows where the other one is, so no SYN has to wait for that.
    for at in 10.200.0.2:5000 '[fd20::2]:5000'; do asked client "connect first $at 2000"; done
    ip netns exec lab-a python3 "$lab_here/sniff.py" v0 >"$lab_tmp/syns" &
    until_line listening "$lab_tmp/syns"
}
# race COMMAND MS WHERE...: dial, and see on the wire that one SYN went to each WHERE, so many
# milliseconds apart. Never earlier; later only if the machine was busy, so three tries are granted.
race() {
    command=$1 apart=$2; shift 2
    for try in 1 2 3; do
        seen=$(wc -l <"$lab_tmp/syns")
        asked client "$command" $((($# - 1) * apart - 5)) 9000
        n=0 before=0 slow=
        for where; do
            n=$((n + 1))
            while [ "$(wc -l <"$lab_tmp/syns")" -lt $((seen + n)) ]; do sleep 0.02; done
            line=$(sed -n "$((seen + n))p" "$lab_tmp/syns")
            same "SYN $n" "$where" "${line#* }"
            at_ms=${line%% *}
            if [ $n -gt 1 ]; then
                gap=$((at_ms - before))
                [ $gap -ge $((apart - 5)) ] || fail "SYN $n to $where after $gap ms"
                [ $gap -le $((apart + 80)) ] || slow="SYN $n to $where after $gap ms"
            fi
            before=$at_ms
        done
        [ -n "$slow" ] || return 0
    done
    fail "$slow, three times"
}

next_address_starts_after_250_ms() {
    server
    race 'connect c [fd30::1]:5000 5000 fallback=10.200.0.2:5000' 250 \
        '[fd30::1]:5000' 10.200.0.2:5000
    same winner 10.200.0.2:5000 "$(field peer)"
}
stagger_is_as_asked_for_each() {
    server
    race 'connect c [fd30::1]:5000 5000 stagger=100 fallback=10.30.0.1:5000
        fallback=[fd30::2]:5000 fallback=10.200.0.2:5000' 100 \
        '[fd30::1]:5000' 10.30.0.1:5000 '[fd30::2]:5000' 10.200.0.2:5000
    same winner 10.200.0.2:5000 "$(field peer)"
    # The losers are closed: nothing is left that would send a SYN again.
    same losers '' "$(ip netns exec lab-a ss -Htan state syn-sent)"
}
name_with_two_families_races_them() {
    server
    printf '127.0.0.1 localhost\n::1 localhost\nfd30::1 dual.test\n10.200.0.2 dual.test\n' \
        >"$lab_tmp/hosts"
    mount --bind "$lab_tmp/hosts" /etc/hosts || skip "cannot replace /etc/hosts"
    start a other # sees the new file
    tell other 'resolve dual.test:5000 2000'
    [ "${answer%% *}" = OK ] || skip "names do not come from /etc/hosts here"
    same count 2 "$(field count)"
    first=$(field addr)
    tell other 'connect c dual.test:5000 5000'; want OK
    same winner 10.200.0.2:5000 "$(field peer)"
    case "$first" in '['*) want OK 245 1000 ;; esac
}
refusal_starts_the_next_at_once() {
    server
    asked client 'connect c 10.200.0.2:4999 5000 fallback=[fd20::2]:5000' 0 240
    same winner '[fd20::2]:5000' "$(field peer)"
    asked client 'connect d 198.51.100.1:5000 5000 fallback=[fd20::2]:5000' 0 240
}
slow_first_address_wins_over_a_dead_second() {
    server
    lab reject drop 5000
    say client 'connect c [fd20::2]:5000 5000 fallback=10.30.0.1:5000'
    # The second address has started, so the first one's SYN is lost; its next comes after 1 s.
    until_line 10.30.0.1 "$lab_tmp/syns"
    lab reject off
    hear client; want OK 800 9000
    same winner '[fd20::2]:5000' "$(field peer)"
}
silence_everywhere_is_etimedout_at_the_one_deadline() {
    server
    tell client 'connect c [fd30::1]:5000 600 stagger=100 fallback=10.30.0.1:5000
        fallback=[fd30::2]:5000'
    want ETIMEDOUT 600 1200
    same attempts 3 "$(field attempts)"
    same tried '[fd30::1]:5000/ETIMEDOUT,10.30.0.1:5000/ETIMEDOUT,[fd30::2]:5000/ETIMEDOUT' \
        "$(field tried)"
    same leftovers '' "$(ip netns exec lab-a ss -Htan state syn-sent)"
}
silence_outweighs_a_refusal() {
    server
    tell client 'connect c 10.200.0.2:4999 400 fallback=10.30.0.1:5000'; want ETIMEDOUT 400 1000
    same tried '10.200.0.2:4999/ECONNREFUSED,10.30.0.1:5000/ETIMEDOUT' "$(field tried)"
}
failures_everywhere_end_it_early() {
    server
    tell client 'connect c 10.200.0.2:4999 9000 fallback=198.51.100.1:5000'
    want 'ECONNREFUSED|ENETUNREACH' 0 1000
    same tried '10.200.0.2:4999/ECONNREFUSED,198.51.100.1:5000/ENETUNREACH' "$(field tried)"
}
source_address_leaves_only_its_own_family() {
    server
    asked client 'connect c [fd20::2]:5000 2000 fallback=10.200.0.2:5000 local=10.200.0.1:0' 0 240
    same winner 10.200.0.2:5000 "$(field peer)"
    asked client 'connect d 10.200.0.2:5000 2000 fallback=[fd20::2]:5000 local=[fd20::1]:0' 0 240
    same winner '[fd20::2]:5000' "$(field peer)"
}

lab_run next_address_starts_after_250_ms stagger_is_as_asked_for_each \
    name_with_two_families_races_them refusal_starts_the_next_at_once \
    slow_first_address_wins_over_a_dead_second \
    silence_everywhere_is_etimedout_at_the_one_deadline silence_outweighs_a_refusal \
    failures_everywhere_end_it_early source_address_leaves_only_its_own_family
