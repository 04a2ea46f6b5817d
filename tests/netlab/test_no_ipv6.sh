#!/bin/sh
# Hosts without IPv6, and without loopback.
. "$(dirname "$0")/lab.sh"

switch_off() {
    for s in lab-a lab-b; do
        ip netns exec $s sysctl -qw net.ipv6.conf.all.disable_ipv6=1 \
            net.ipv6.conf.default.disable_ipv6=1
    done
}
# What must work on any host with IPv4, over the link and over loopback.
v4_works() {
    start b server
    start a client
    asked server 'listen l :5000'
    asked client 'connect c 10.200.0.2:5000 2000'
    asked server 'accept s l 2000'
    peer=$(field peer)
    same client 10.200.0.1 "${peer%:*}"
    asked client 'sendall c text:hello 1000'
    asked server 'recv s 10 1000'
    asked server 'bind u :5000'
    asked client 'bind u :0'
    asked client 'sendto u 10.200.0.2:5000 text:x 1000'
    asked server 'recvfrom u 10 1000'
    peer=$(field sender)
    same sender 10.200.0.1 "${peer%:*}"
    asked server "sendto u $peer text:back 1000"
    asked client 'recvfrom u 10 1000'
    same sender 10.200.0.2:5000 "$(field sender)"
    asked client 'listen m :0'
    port=$(field addr); port=${port##*:}
    asked client "connect d 127.0.0.1:$port 1000"
    asked client "connect e :$port 1000" # any interface means this machine
    asked client "connect f localhost:$port 5000"
    # Races and names step over the family that is not there.
    asked client "connect g [::1]:$port 3000 fallback=10.200.0.2:5000" 0 1000
    for option in NODELAY KEEPALIVE TTL TOS BROADCAST REUSEADDR; do
        asked client "supported $option"
        same "$option" 1 "$(field value)"
    done
}
switched_off_ipv6_leaves_v4_working() {
    switch_off
    v4_works
    tell client 'connect x [::1]:5000 1000'
    want 'EADDRNOTAVAIL|ENETUNREACH|EAFNOSUPPORT' 0 500
    tell client 'connect x [fd20::2]:5000 1000'
    want 'EADDRNOTAVAIL|ENETUNREACH|EAFNOSUPPORT' 0 500
    tell client 'listen x [::1]:0'; want 'EADDRNOTAVAIL|EAFNOSUPPORT'
}
kernel_without_ipv6_leaves_v4_working() {
    WRAP="python3 $lab_here/no_ipv6.py"
    # shellcheck disable=SC2086
    $WRAP true || skip "cannot take IPv6 from a program here"
    v4_works
    asked client 'local m'
    case "$(field addr)" in 0.0.0.0:*) ;; *) fail "wanted 0.0.0.0: $answer" ;; esac
    asked client 'local u'
    case "$(field addr)" in 0.0.0.0:*) ;; *) fail "wanted 0.0.0.0: $answer" ;; esac
    tell client 'connect x [::1]:5000 1000'; want EAFNOSUPPORT 0 500
    tell client 'listen x [::1]:0'; want EAFNOSUPPORT
    tell client 'listen x [::]:0'; want EAFNOSUPPORT
    tell client 'listen x :0 v6only=1'; want 'EAFNOSUPPORT|ENOTSUP'
    tell client 'bind x [::1]:0'; want EAFNOSUPPORT
    asked client 'parse [2001:db8::1]:80' # text needs no kernel
    same addr '[2001:db8::1]:80' "$(field addr)"
}
no_loopback_is_named_at_once() {
    WRAP='unshare -n' # a network in which nothing is up yet
    start a client
    tell client 'connect c 127.0.0.1:5000 2000'; want ENETUNREACH 0 500
    tell client 'connect c [::1]:5000 2000'; want 'ENETUNREACH|EADDRNOTAVAIL' 0 500
    tell client 'connect c 127.0.0.1:5000 2000 type=dgram'; want ENETUNREACH 0 500
    # What needs no network works.
    asked client 'pair p q'
    asked client 'sendall p text:x 1000'
    asked client 'recv q 1 1000'
    asked client 'resolve 192.0.2.1:80 1000'
    asked client 'poller auto'
    asked client 'wake'
    asked client 'poll 5000' 0 4000
}

lab_run switched_off_ipv6_leaves_v4_working kernel_without_ipv6_leaves_v4_working \
    no_loopback_is_named_at_once
