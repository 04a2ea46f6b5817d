#!/bin/sh
# A peer that falls silent: by our limits, by keepalive, by TCP's own patience.
. "$(dirname "$0")/lab.sh"

limits_hold_over_a_cut_link() {
    connected
    lab partition
    tell client 'recv c 10 200'; want ETIMEDOUT 200 350
    tell client 'sendall c zero:30000000 300'; want ETIMEDOUT 300 1000
    [ "$(field "done")" -gt 0 ] || fail "nothing was taken: $answer"
    tell client 'connect d 10.200.0.2:5000 200'; want ETIMEDOUT 200 350
    tell client 'graceful c 100000 200'; want ETIMEDOUT 200 350
}
limit_leaves_the_connection_good() {
    connected
    lab partition
    tell client 'recv c 10 100'; want ETIMEDOUT 100 500
    lab heal
    asked server 'sendall s text:hello 1000'
    asked client 'recv c 10 5000'
    same n 5 "$(field n)"
}
keepalive_gives_up_after_idle_and_probes() {
    began=$(now)
    connected
    asked client 'keepalive c 1 1 2'
    lab partition
    tell client 'recv c 10 15000'
    took=$(($(now) - began))
    want ETIMEDOUT 0 8000
    same os 110 "$(field os)"
    [ $took -ge 2900 ] || fail "gave up after $took ms: $answer"
}
no_keepalive_waits_on() {
    connected
    lab partition
    tell client 'recv c 10 4500'; want ETIMEDOUT 4500 7000
}
keepalive_ends_a_poller_wait() {
    began=$(now)
    connected
    asked client 'keepalive c 1 1 1'
    asked client 'poller epoll'
    asked client 'add c r'
    lab partition
    asked client 'poll 15000' 0 8000
    took=$(($(now) - began))
    same event r "$(field c)"
    [ $took -ge 1900 ] || fail "gave up after $took ms: $answer"
    tell client 'recv c 10 0'; want ETIMEDOUT 0 500
}
user_timeout_gives_up_on_sent_data() {
    connected
    asked client 'set c USER_TIMEOUT 1000'
    lab partition
    asked client 'sendall c text:hello 1000'
    asked client 'get c UNSENT'
    same unacknowledged 5 "$(field value)"
    tell client 'recv c 10 15000'; want ETIMEDOUT 0 8000
    same os 110 "$(field os)"
}
tcp_gives_up_connecting() {
    lab fast-timeouts
    lab partition
    start a client
    tell client 'connect c 10.200.0.2:5000 -1'; want 'ETIMEDOUT|EHOSTUNREACH' 2500 9000
}
tcp_gives_up_connecting_to_a_silent_port() {
    lab fast-timeouts
    lab reject drop 5000
    start a client
    start a six
    say client 'connect c 10.200.0.2:5000 -1'
    tell six 'connect c [fd20::2]:5000 -1'; want ETIMEDOUT 2500 9000
    hear client; want ETIMEDOUT 2500 9000
    same os 110 "$(field os)"
}
tcp_gives_up_sending() {
    lab fast-timeouts
    connected
    lab partition
    asked client 'sendall c text:hello 1000'
    tell client 'recv c 10 -1'; want 'ETIMEDOUT|EHOSTUNREACH' 3000 20000
}

lab_run limits_hold_over_a_cut_link limit_leaves_the_connection_good \
    keepalive_gives_up_after_idle_and_probes no_keepalive_waits_on keepalive_ends_a_poller_wait \
    user_timeout_gives_up_on_sent_data tcp_gives_up_connecting \
    tcp_gives_up_connecting_to_a_silent_port tcp_gives_up_sending
