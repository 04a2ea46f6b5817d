#!/bin/sh
# A client of examples/apps/chat_server.c whose link is cut: gone within the limit, and once.
. "$(dirname "$0")/lab.sh"

# The program: built before, or compiled now.
chat_server() {
    if [ -n "${NETIO_BUILD:-}" ] && [ -x "$NETIO_BUILD/chat_server" ]; then
        echo "$NETIO_BUILD/chat_server"
    else
        ${CC:-cc} -O1 "$lab_here/../../examples/apps/chat_server.c" -o "$lab_tmp/chat_server" -pthread
        echo "$lab_tmp/chat_server"
    fi
}
# chatter SIDE NAME: a client that answers all the time; what it hears is in the file NAME.
chatter() {
    { echo "LOGIN $2"; while sleep 0.3; do echo PONG; done; } |
        lab exec "$1" nc 10.200.0.2 9000 >"$lab_tmp/$2" &
    until_line "you are $2" "$lab_tmp/$2"
}
serve() {
    command -v nc >/dev/null || skip "no nc"
    lab exec b "$(chat_server)" "$@" 10.200.0.2:9000 >"$lab_tmp/out" 2>"$lab_tmp/log" &
    until_line listening "$lab_tmp/out"
    chatter b ann # on the server's side of the link
    chatter a bob
    until_line 'bob joined' "$lab_tmp/ann"
}

cut_client_is_gone_once_and_the_other_stays() {
    serve --silence 2
    lab partition
    began=$(now)
    until_line 'bob left' "$lab_tmp/ann"
    took=$(($(now) - began))
    [ $took -ge 1600 ] && [ $took -le 5000 ] || fail "gone after $took ms: $(cat "$lab_tmp/log")"
    bob=$(sed -n 's/.*#\([0-9]*\) is bob.*/\1/p' "$lab_tmp/log")
    until_line "#$bob ended" "$lab_tmp/log"
    sleep 2.5 # whatever else may end it has its chance
    same "times it ended" 1 "$(grep -c "#$bob ended" "$lab_tmp/log")"
    same "times it left" 1 "$(grep -c 'bob left' "$lab_tmp/ann")"
    lab heal
    chatter b bob # the name is free
}
link_that_comes_back_in_time_costs_nobody() {
    serve --silence 6
    lab partition
    sleep 1.5
    lab heal
    sleep 1
    ! grep -q 'bob left' "$lab_tmp/ann" || fail "$(cat "$lab_tmp/log")"
}

lab_run cut_client_is_gone_once_and_the_other_stays link_that_comes_back_in_time_costs_nobody
