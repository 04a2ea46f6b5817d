#!/bin/sh
# Connections that the system kills (ss -K): aborted on that side, reset on the other.
. "$(dirname "$0")/lab.sh"

kill_works() {
    start a probe
    start b target
    asked target 'listen l :4999'
    asked probe 'connect c 10.200.0.2:4999 1000'
    lab rst b 4999
    tell probe 'recv c 1 1000'
    case "$answer" in ETIMEDOUT*) skip "this kernel kills no connections" ;; esac
}
waiting_receivers_hear_it_at_once() {
    kill_works
    for at in 10.200.0.2:5000 '[fd20::2]:5001'; do
        asked target "listen l $at"
        asked probe "connect c $at 2000"
        asked target 'accept s l 2000'
        say probe 'recv c 10 10000'
        say target 'recv s 10 10000'
        lab rst b "${at##*:}"
        hear probe; want ECONNRESET 0 3000
        hear target; want ECONNABORTED 0 3000
        tell target 'send s text:x 1000'; want 'EPIPE|ECONNABORTED|ECONNRESET'
        tell probe 'send c text:x 1000'; want 'EPIPE|ECONNRESET'
    done
}
pollers_wake_for_it() {
    kill_works
    asked target 'listen l :5000'
    for backend in select poll epoll; do
        asked probe 'connect c 10.200.0.2:5000 1000'
        asked target 'accept s l 1000'
        asked probe "poller $backend"
        asked target "poller $backend"
        asked probe 'add c r'
        asked target 'add s r'
        say probe 'poll 10000'
        say target 'poll 10000'
        lab rst b 5000
        hear probe; want OK 0 3000
        same event r "$(field c)"
        hear target; want OK 0 3000
        same event r "$(field s)"
        tell probe 'recv c 10 0'; want ECONNRESET
        tell target 'recv s 10 0'; want ECONNABORTED
        asked probe 'drop c'
        asked target 'drop s'
    done
}
unread_bytes_come_before_the_end() {
    kill_works
    asked target 'listen l :5000'
    asked probe 'connect c 10.200.0.2:5000 1000'
    asked target 'accept s l 1000'
    asked target 'sendall s text:last 1000'
    asked probe 'wait c r 2000'
    lab rst b 5000
    asked target 'wait s r 2000'
    asked probe 'recv c 10 2000'
    same bytes 6c617374 "$(field hex)"
    tell probe 'recv c 10 2000'; want ECONNRESET
}
peer_that_forgot_us_is_econnreset() {
    kill_works
    asked target 'listen l :5000'
    asked probe 'connect c 10.200.0.2:5000 1000'
    asked target 'accept s l 1000'
    # As if it had crashed and come back: the reset that tells us is lost.
    lab partition
    lab rst b 5000
    lab heal
    tell probe 'recv c 10 200'; want ETIMEDOUT 200 900
    asked probe 'send c text:hello 1000'
    tell probe 'recv c 10 5000'; want ECONNRESET 0 3000
}

lab_run waiting_receivers_hear_it_at_once pollers_wake_for_it unread_bytes_come_before_the_end \
    peer_that_forgot_us_is_econnreset
