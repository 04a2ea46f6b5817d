#!/bin/sh
# Link-local addresses with a zone, where the zone is what makes them mean anything.
. "$(dirname "$0")/lab.sh"

link_local() { # SIDE: its address on v0, without zone
    ip -n "lab-$1" -6 -o addr show dev v0 scope link | sed 's/.*inet6 //; s#/.*##'
}

zone_connects_and_is_shown() {
    a=$(link_local a) b=$(link_local b)
    start b server
    start a client
    for listen in "[$b%v0]:5000" ':5000'; do
        asked server "listen l $listen"
        asked client "connect c [$b%v0]:5000 2000"
        same peer "[$b%v0]:5000" "$(field peer)"
        from=$(field local)
        same source "[$a%v0]" "${from%:*}"
        asked server 'accept s l 2000'
        same client "$from" "$(field peer)"
        asked server 'local s'
        same 'own address' "[$b%v0]:5000" "$(field addr)"
        asked client 'sendall c text:hello 1000'
        asked server 'recv s 10 1000'
        # The client closes first, so the server's port is free at once.
        asked client 'close c'
        asked server 'recvall s 1000'
        asked server 'close s'
        asked server 'close l'
    done
}
numeric_zone_is_the_same() {
    b=$(link_local b)
    index=$(ip netns exec lab-a cat /sys/class/net/v0/ifindex)
    start b server
    start a client
    asked server "listen l :5000"
    asked client "connect c [$b%$index]:5000 2000"
    same peer "[$b%v0]:5000" "$(field peer)"
    asked client "parse [$b%v0]:1"
    same scope "$index" "$(field scope)"
}
datagrams_show_the_zone() {
    a=$(link_local a) b=$(link_local b)
    start b server
    start a client
    asked server "bind u [$b%v0]:5000"
    asked client "bind u [$a%v0]:6000"
    asked client "sendto u [$b%v0]:5000 text:x 1000"
    asked server 'recvfrom u 10 2000'
    same sender "[$a%v0]:6000" "$(field sender)"
    asked server "sendto u $(field sender) text:y 1000"
    asked client 'recvfrom u 10 2000'
    same sender "[$b%v0]:5000" "$(field sender)"
}
multicast_zone_reaches_the_link() {
    start a client
    asked client 'bind u :0'
    asked client 'sendto u [ff02::1%v0]:9 text:x 1000'
}
unknown_zone_is_enodev() {
    start a client
    for command in 'parse [fe80::1%nope0]:80' 'listen l [fe80::1%nope0]:80' \
        'connect c [fe80::1%nope0]:80 1000' 'bind u [fe80::1%nope0]:80'; do
        tell client "$command"; want ENODEV 0 500
    done
}
missing_zone_is_an_error_at_once() {
    b=$(link_local b)
    start a client
    tell client "connect c [$b]:5000 2000"; want 'EINVAL|ENETUNREACH|ENODEV' 0 500
    tell client "listen l [$b]:5000"; want 'EINVAL|EADDRNOTAVAIL|ENODEV' 0 500
}

lab_run zone_connects_and_is_shown numeric_zone_is_the_same datagrams_show_the_zone \
    multicast_zone_reaches_the_link unknown_zone_is_enodev missing_zone_is_an_error_at_once
