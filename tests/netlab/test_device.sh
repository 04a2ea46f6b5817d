#!/bin/sh
# The DEVICE option: of two links to the same host, traffic takes the one that was asked for.
. "$(dirname "$0")/lab.sh"

# A second link v1, 10.202.0.x and fd22::x. The host 10.99.0.1 and fd99::1 is side b; the routes
# prefer v0.
two_links() {
    ip -n lab-a link add v1 type veth peer name v1 netns lab-b
    n=1
    for s in lab-a lab-b; do
        ip netns exec $s sysctl -qw net.ipv6.conf.v1.accept_dad=0 \
            net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.v0.rp_filter=0 net.ipv4.conf.v1.rp_filter=0
        ip -n $s addr add 10.202.0.$n/24 dev v1
        ip -n $s addr add fd22::$n/64 dev v1 nodad
        n=2
    done
    for s in lab-a lab-b; do ip -n $s link set v1 up; done
    ip -n lab-b addr add 10.99.0.1/32 dev lo
    ip -n lab-b addr add fd99::1/128 dev lo nodad
    ip -n lab-a route add 10.99.0.1 via 10.200.0.2 metric 1
    ip -n lab-a route add 10.99.0.1 via 10.202.0.2 metric 9
    ip -n lab-a route add fd99::1 via fd20::2 metric 1
    ip -n lab-a route add fd99::1 via fd22::2 metric 9
}
sent() { ip netns exec lab-a cat "/sys/class/net/$1/statistics/tx_packets"; }

connection_leaves_by_the_device() {
    two_links
    start b server
    start a client
    asked server 'listen l :5000'
    for at in 10.99.0.1:5000 '[fd99::1]:5000'; do
        for dev in v0 v1; do
            before=$(sent $dev)
            asked client "connect c $at 2000 set=DEVICE:$dev"
            asked server 'accept s l 2000'
            # The source address belongs to the link, so the peer names it too.
            case "$dev $at" in
                "v0 ["*) want_from='[fd20::1]' ;;
                "v1 ["*) want_from='[fd22::1]' ;;
                v0*) want_from=10.200.0.1 ;;
                v1*) want_from=10.202.0.1 ;;
            esac
            peer=$(field peer)
            same "source over $dev" "$want_from" "${peer%:*}"
            asked client 'get c DEVICE'
            same device $dev "$(field value)"
            asked client 'sendall c random:100000:1 2000'
            asked client 'shutdown c write'
            asked server 'recvall s 2000'
            same bytes 100000 "$(field n)"
            asked client 'close c'
            asked server 'close s'
            [ "$(sent $dev)" -ge $((before + 5)) ] || fail "few packets left by $dev"
        done
    done
}
datagram_leaves_by_the_device() {
    two_links
    start b server
    start a client
    asked server 'bind u :5000'
    for dev in v0 v1; do
        asked client "bind u :0 set=DEVICE:$dev"
        for at in 10.99.0.1:5000 '[fd99::1]:5000'; do
            asked client "sendto u $at text:x 1000"
            asked server 'recvfrom u 10 2000'
            case "$dev $(field sender)" in
                "v0 10.200.0.1:"*|"v1 10.202.0.1:"*|"v0 [fd20::1]:"*|"v1 [fd22::1]:"*) ;;
                *) fail "wrong way over $dev: $answer" ;;
            esac
        done
        asked client 'close u'
    done
}
listener_hears_its_device_only() {
    two_links
    start b server
    start a client
    asked server 'listen l :5000 set=DEVICE:v1'
    asked client 'connect c 10.202.0.2:5000 2000'
    asked client 'connect d [fd22::2]:5000 2000'
    tell client 'connect e 10.200.0.2:5000 2000'; want ECONNREFUSED
    tell client 'connect e [fd20::2]:5000 2000'; want ECONNREFUSED
}
unknown_device_is_enodev() {
    start a client
    tell client 'listen l :5000 set=DEVICE:nope0'; want ENODEV
    asked client 'bind u :0'
    tell client 'set u DEVICE nope0'; want ENODEV
    asked client 'sendto u 10.200.0.2:9 text:x 1000'
}
device_that_cannot_reach_says_so() {
    start a client
    tell client 'connect c 10.200.0.2:5000 1000 set=DEVICE:lo'
    want 'ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|EINVAL' 0 2000
}

lab_run connection_leaves_by_the_device datagram_leaves_by_the_device \
    listener_hears_its_device_only unknown_device_is_enodev device_that_cannot_reach_says_so
