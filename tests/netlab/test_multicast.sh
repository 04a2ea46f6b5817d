#!/bin/sh
# Multicast over a link, IPv4 and IPv6: who joined gets it, by the interface, from the source and as
# far as was said, and nobody else.
. "$(dirname "$0")/lab.sh"

index() { ip netns exec "lab-$1" cat "/sys/class/net/$2/ifindex"; } # SIDE DEVICE
members() { ip -n "lab-$1" maddr show dev "$2"; }

# A receiver on side b with socket u on ANY address, and a sender on side a with u.
both_sides() {
    start b receiver
    start a sender
    asked receiver "bind u $1:9999 share=1 set=RECV_LOCAL:1 set=RECV_TTL:1"
    asked sender "bind u $1:0 set=MULTICAST_IF:$(index a v0)"
}
family() { # v4 or v6: the addresses that a test needs
    case "$1" in
        v4) any=0.0.0.0 group=239.1.1.1 other=239.1.1.2 to_b=10.200.0.2:9999
            near=10.200.0.1:0 far=10.200.0.11:0 far_net=10.200.0.11/24 ;;
        v6) any='[::]' group='[ff15::4242]' other='[ff15::4243]' to_b='[fd20::2]:9999'
            near='[fd20::1]:0' far='[fd20::11]:0' far_net=fd20::11/64 ;;
    esac
}
# What came before it would have come by now: only this is there.
nothing_but_the_marker() {
    asked sender "sendto u $to_b text:marker 1000"
    asked receiver 'packet u 20 2000'
    same 'what came' 6d61726b6572 "$(field hex)"
}
gets() { # HEX: the next datagram
    asked receiver 'packet u 20 2000'
    same 'what came' "$1" "$(field hex)"
}

joined_and_left() {
    family "$1"
    both_sides "$any"
    asked sender "sendto u $group:9999 text:0 1000"
    nothing_but_the_marker
    asked receiver "join u $group:0 v0"
    for n in 1 2 3; do asked sender "sendto u $group:9999 text:$n 1000"; done
    for n in 1 2 3; do
        gets 3$n
        same destination "$group:0" "$(field local)"
        same interface "$(index b v0)" "$(field if)"
        same hops 1 "$(field ttl)"
    done
    asked sender "sendto u $other:9999 text:4 1000"
    nothing_but_the_marker
    asked receiver "leave u $group:0 v0"
    asked sender "sendto u $group:9999 text:5 1000"
    nothing_but_the_marker
    asked receiver "join u $group:0 v0"
    asked sender "sendto u $group:9999 text:6 1000"
    gets 36
}
who_joined_gets_it_until_it_leaves() { joined_and_left v4; }
who_joined_gets_it_until_it_leaves_ipv6() { joined_and_left v6; }

joins_by() { # INTERFACE as v4 has it, and as v6
    family v4
    both_sides "$any"
    asked receiver "join u $group:0 $1"
    asked sender "sendto u $group:9999 text:1 1000"
    gets 31
    asked receiver "leave u $group:0 $1"
    family v6
    asked receiver 'close u'
    asked sender 'close u'
    asked receiver "bind u [::]:9999"
    asked sender "bind u [::]:0 set=MULTICAST_IF:$(index a v0)"
    asked receiver "join u $group:0 $2"
    asked sender "sendto u $group:9999 text:1 1000"
    gets 31
}
interface_by_name() { joins_by v0 v0; }
interface_by_number() { joins_by "$(index b v0)" "$(index b v0)"; }
interface_by_address() { joins_by 10.200.0.2 fd20::2; }
interface_that_the_route_says() { joins_by - v0; }
link_scope_group_by_its_zone() {
    both_sides '[::]'
    asked receiver 'join u [ff02::4242%v0]:0 -'
    asked sender 'sendto u [ff02::4242%v0]:9999 text:1 1000'
    gets 31
    same destination '[ff02::4242%v0]:0' "$(field local)"
    case "$(field sender)" in '[fe80::'*'%v0]:'*) ;; *) fail "sender $(field sender)" ;; esac
    asked receiver 'leave u [ff02::4242%v0]:0 -'
    to_b='[fd20::2]:9999'
    asked sender 'sendto u [ff02::4242%v0]:9999 text:2 1000'
    nothing_but_the_marker
}
dual_socket_joins_both_families() {
    start b receiver
    start a sender
    asked receiver 'bind u :9999 share=1 set=RECV_LOCAL:1'
    asked receiver 'join u 239.1.1.1:0 v0'
    asked receiver 'join u [ff15::4242]:0 v0'
    asked sender "bind u :0 set=MULTICAST_IF:$(index a v0)"
    asked sender 'sendto u 239.1.1.1:9999 text:4 1000'
    gets 34
    from=$(field sender)
    same sender 10.200.0.1 "${from%:*}"
    same destination 239.1.1.1:0 "$(field local)"
    asked sender 'sendto u [ff15::4242]:9999 text:6 1000'
    gets 36
}

from_one_source() {
    family "$1"
    ip -n lab-a addr add "$far_net" dev v0
    both_sides "$any"
    asked receiver "join u $group:0 v0 $near"
    tell receiver "join u $group:0 v0 $near"; want EEXIST
    tell receiver "leave u $group:0 v0 $far"; want ENOENT
    asked sender "bind near $near set=MULTICAST_IF:$(index a v0)"
    asked sender "bind far $far set=MULTICAST_IF:$(index a v0)"
    asked sender "sendto far $group:9999 text:1 1000"
    asked sender "sendto near $group:9999 text:2 1000"
    gets 32
    asked receiver "join u $group:0 v0 $far"
    asked sender "sendto far $group:9999 text:3 1000"
    gets 33
    asked receiver "leave u $group:0 v0 $near"
    asked sender "sendto near $group:9999 text:4 1000"
    asked sender "sendto far $group:9999 text:5 1000"
    gets 35
    asked receiver "leave u $group:0 v0 $far"
    asked sender "sendto far $group:9999 text:6 1000"
    nothing_but_the_marker
}
source_filter_lets_one_sender_in() { from_one_source v4; }
source_filter_lets_one_sender_in_ipv6() { from_one_source v6; }

so_far() {
    family "$1"
    both_sides "$any"
    asked receiver "join u $group:0 v0"
    asked sender 'get u MULTICAST_TTL'
    same 'default' 1 "$(field value)"
    for hops in 1 7 255; do
        asked sender "set u MULTICAST_TTL $hops"
        asked sender "sendto u $group:9999 text:1 1000"
        gets 31
        same hops $hops "$(field ttl)"
    done
    # 0 is not further than this machine. Linux keeps that only if the machine is a member itself.
    asked sender 'set u MULTICAST_TTL 0'
    asked sender "bind own $any:9999"
    asked sender "join own $group:0 v0"
    asked sender "sendto u $group:9999 text:2 1000"
    asked sender 'recvfrom own 20 2000'
    nothing_but_the_marker
    for hops in -1 256; do tell sender "set u MULTICAST_TTL $hops"; want EINVAL; done
}
hops_are_as_many_as_were_set() { so_far v4; }
hops_are_as_many_as_were_set_ipv6() { so_far v6; }

own_copy() {
    family "$1"
    both_sides "$any"
    asked receiver "join u $group:0 v0"
    asked sender "bind own $any:9999"
    asked sender "join own $group:0 v0"
    asked sender 'get u MULTICAST_LOOP'
    same 'default' 1 "$(field value)"
    asked sender "sendto u $group:9999 text:1 1000"
    gets 31
    asked sender 'recvfrom own 20 2000'
    asked sender 'set u MULTICAST_LOOP 0'
    asked sender "sendto u $group:9999 text:2 1000"
    gets 32
    asked sender 'set u MULTICAST_LOOP 1'
    asked sender "sendto u $group:9999 text:3 1000"
    gets 33
    asked sender 'recvfrom own 20 2000'
    same 'own copy' 33 "$(field hex)"
}
own_copy_can_be_switched_off() { own_copy v4; }
own_copy_can_be_switched_off_ipv6() { own_copy v6; }

second_link() {
    ip -n lab-a link add v1 type veth peer name v1 netns lab-b
    n=1
    for s in a b; do
        ip netns exec lab-$s sysctl -qw net.ipv6.conf.v1.accept_dad=0 || true
        ip -n lab-$s addr add 10.201.0.$n/24 dev v1
        ip -n lab-$s addr add fd21::$n/64 dev v1 nodad
        n=2
    done
    for s in a b; do ip -n lab-$s link set v1 up; done
    for s in a b; do # what is sent before is lost
        until ip -n lab-$s -6 addr show dev v1 scope link | grep -q inet6 &&
            [ "$(ip netns exec lab-$s cat /sys/class/net/v1/operstate)" = up ]; do sleep 0.02; done
    done
}
# The next datagram that came by the way. Linux gives a socket that joined an IPv6 group on one
# interface also what comes by another, if somebody joined the group there.
packet_by() { # SOCKET DEVICE
    asked receiver "packet $1 20 2000"
    if [ "$any" = '[::]' ]; then
        while [ "$(field if)" != "$(index b "$2")" ]; do asked receiver "packet $1 20 2000"; done
    fi
    same 'way in' "$(index b "$2")" "$(field if)"
}
chosen_way() { # ADDRESS to send from, for sockets of one family or both
    second_link
    both_sides "$any"
    asked receiver "join u $group:0 v0"
    asked receiver "bind w $any:9999 share=1 set=RECV_LOCAL:1"
    asked receiver "join w $group:0 v1"
    asked sender "bind x $1"
    for way in v1 v0 v1; do
        asked sender "set x MULTICAST_IF $(index a $way)"
        asked sender 'get x MULTICAST_IF'
        same 'way out' "$(index a $way)" "$(field value)"
        asked sender "sendto x $group:9999 text:$way 1000"
        socket=u
        if [ $way = v1 ]; then socket=w; fi
        packet_by $socket $way
        case $way in
            v0) same 'what came' 7630 "$(field hex)" ;;
            v1) same 'what came' 7631 "$(field hex)" ;;
        esac
    done
    if [ "$any" != '[::]' ]; then
        for socket in u w; do tell receiver "packet $socket 20 0"; want EAGAIN; done
    fi
}
sender_chooses_the_interface() { family v4; chosen_way 0.0.0.0:0; }
sender_chooses_the_interface_ipv6() { family v6; chosen_way '[::]:0'; }
dual_sender_chooses_the_interface_for_ipv4() { family v4; chosen_way :0; }

several_subscribers() {
    family "$1"
    both_sides "$any"
    for s in v w; do asked receiver "bind $s $any:9999 share=1"; done
    for s in u v w; do asked receiver "join $s $group:0 v0"; done
    tell receiver "bind x $any:9999"; want EADDRINUSE
    asked sender "sendto u $group:9999 text:1 1000"
    for s in u v w; do
        asked receiver "packet $s 20 2000"
        same 'what came' 31 "$(field hex)"
    done
}
several_subscribers_get_each_datagram() { several_subscribers v4; }
several_subscribers_get_each_datagram_ipv6() { several_subscribers v6; }

only_own_groups() {
    family "$1"
    both_sides "$any"
    asked receiver "bind w $any:9999 share=1"
    asked receiver "join u $group:0 v0"
    asked receiver "join w $other:0 v0"
    asked sender "sendto u $group:9999 text:1 1000"
    asked sender "sendto u $other:9999 text:2 1000"
    asked receiver 'packet u 20 2000'; same 'first' 31 "$(field hex)"
    asked receiver 'packet w 20 2000'; same 'second' 32 "$(field hex)"
    for s in u w; do tell receiver "packet $s 20 0"; want EAGAIN; done
}
groups_of_others_are_not_delivered() { only_own_groups v4; }
groups_of_others_are_not_delivered_ipv6() { only_own_groups v6; }

misuse_has_names() {
    start b receiver
    for lab_net in v4 v6; do
        family $lab_net
        asked receiver "bind u $any:9999"
        asked receiver "join u $group:0 v0"
        tell receiver "join u $group:0 v0"; want EEXIST
        tell receiver "leave u $other:0 v0"; want ENOENT
        tell receiver "join u $to_b v0"; want EINVAL
        tell receiver "join u $other:0 nope0"; want ENODEV
        asked receiver "leave u $group:0 v0"
        tell receiver "leave u $group:0 v0"; want ENOENT
        asked receiver 'close u'
    done
    asked receiver 'bind u 0.0.0.0:9999'
    tell receiver 'join u [ff15::4242]:0 v0'; want EINVAL
    tell receiver 'join u 239.1.1.1:0 v0 [fd20::1]:0'; want EINVAL
    ip -n lab-b route del 224.0.0.0/4 dev v0
    tell receiver 'join u 239.1.1.1:0 -'; want ENODEV # no route says which
}
too_many_groups_have_a_name() {
    ip netns exec lab-b sysctl -qw net.ipv4.igmp_max_memberships=3 || skip 'no such limit here'
    start b receiver
    asked receiver 'bind u 0.0.0.0:9999'
    for n in 1 2 3; do asked receiver "join u 239.1.1.$n:0 v0"; done
    tell receiver 'join u 239.1.1.4:0 v0'; want ENOBUFS
    asked receiver 'leave u 239.1.1.1:0 v0'
    asked receiver 'join u 239.1.1.4:0 v0'
}
closing_leaves() {
    start b receiver
    for lab_net in v4 v6; do
        family $lab_net
        plain=${group#[}; plain=${plain%]}
        asked receiver "bind u $any:9999"
        asked receiver "join u $group:0 v0"
        members b v0 | grep -q "$plain" || fail "not a member of $plain: $(members b v0)"
        asked receiver 'close u'
        if members b v0 | grep -q "$plain"; then fail "still a member of $plain"; fi
    done
}
interface_that_vanishes_is_survived() {
    second_link
    start b receiver
    asked receiver 'bind u :9999'
    number=$(index b v1)
    asked receiver 'join u 239.1.1.1:0 v1'
    asked receiver 'join u [ff15::4242]:0 v1'
    ip -n lab-b link del v1
    # Linux forgets the membership with the interface, or keeps it until it is left.
    tell receiver "leave u 239.1.1.1:0 $number"; want 'OK|ENOENT|ENODEV'
    tell receiver "leave u [ff15::4242]:0 $number"; want 'OK|ENOENT|ENODEV'
    tell receiver 'join u 239.1.1.1:0 v1'; want ENODEV
    tell receiver 'join u [ff15::4242]:0 v1'; want ENODEV
    tell receiver "set u MULTICAST_IF $number"; want ENODEV
    start a sender
    to_b=10.200.0.2:9999
    asked sender 'bind u 0.0.0.0:0'
    nothing_but_the_marker
}
membership_outlasts_the_link() {
    family v4
    both_sides "$any"
    asked receiver "join u $group:0 v0"
    lab link down b
    lab link up b
    lab link down a
    lab link up a
    ip -n lab-a route replace 224.0.0.0/4 dev v0
    for try in 1 2 3 4 5 6 7 8 9 10; do # the link takes a moment
        tell sender "sendto u $group:9999 text:1 1000"
        tell receiver 'packet u 20 300'
        case $answer in OK*) break ;; esac
    done
    want OK
}

lab_run who_joined_gets_it_until_it_leaves who_joined_gets_it_until_it_leaves_ipv6 \
    interface_by_name interface_by_number interface_by_address interface_that_the_route_says \
    link_scope_group_by_its_zone dual_socket_joins_both_families \
    source_filter_lets_one_sender_in source_filter_lets_one_sender_in_ipv6 \
    hops_are_as_many_as_were_set hops_are_as_many_as_were_set_ipv6 \
    own_copy_can_be_switched_off own_copy_can_be_switched_off_ipv6 \
    sender_chooses_the_interface sender_chooses_the_interface_ipv6 \
    dual_sender_chooses_the_interface_for_ipv4 \
    several_subscribers_get_each_datagram several_subscribers_get_each_datagram_ipv6 \
    groups_of_others_are_not_delivered groups_of_others_are_not_delivered_ipv6 \
    misuse_has_names too_many_groups_have_a_name closing_leaves \
    interface_that_vanishes_is_survived membership_outlasts_the_link
