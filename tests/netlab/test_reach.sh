#!/bin/sh
# Refused, unreachable, forbidden and silent are told apart, over IPv4 and IPv6.
. "$(dirname "$0")/lab.sh"

# An ICMPv6 answer to a SYN on the same machine is often noticed only when the SYN is sent again,
# after one second: a limit of 5 s leaves room.
dial() { # ERROR4 ERROR6 [FROM_MS [TO_MS]]
    start a four
    start a six
    say four 'connect c 10.200.0.2:5000 5000'
    say six 'connect c [fd20::2]:5000 5000'
    hear four; want "$1" "${3:-0}" "${4:-3000}"
    same verdict "$1" "$(field verdict)"
    same tried "10.200.0.2:5000/$1" "$(field tried)"
    hear six; want "$2" "${3:-0}" "${4:-3000}"
}

closed_port_is_refused() { dial ECONNREFUSED ECONNREFUSED 0 1000; }
reset_is_refused() { lab reject reset 5000; dial ECONNREFUSED ECONNREFUSED; }
port_unreachable_is_refused() { lab reject port 5000; dial ECONNREFUSED ECONNREFUSED; }
host_unreachable_is_named() { lab reject host 5000; dial EHOSTUNREACH EHOSTUNREACH; }
net_unreachable_is_named() { lab reject net 5000; dial ENETUNREACH ENETUNREACH; }
# RFC 1812 has no code of its own for it that Linux tells apart; RFC 4443 has.
prohibited_is_named() { lab reject admin 5000; dial EHOSTUNREACH EACCES; }
no_route_is_enetunreach_at_once() {
    start a client
    tell client 'connect c 198.51.100.1:80 5000'; want ENETUNREACH 0 500
    tell client 'connect c [2001:db8::1]:80 5000'; want ENETUNREACH 0 500
    tell client 'connect c 198.51.100.1:80 5000 type=dgram'; want ENETUNREACH 0 500
    asked client 'bind u :0'
    tell client 'sendto u 198.51.100.1:80 text:x 1000'; want ENETUNREACH 0 500
    tell client 'sendto u [2001:db8::1]:80 text:x 1000'; want ENETUNREACH 0 500
}
routes_refuse_by_name() {
    start a client
    for lab_net in 198.51.100.0/24 2001:db8::/32; do
        case $lab_net in *:*) at='[2001:db8::1]:80' ;; *) at=198.51.100.1:80 ;; esac
        lab route unreachable $lab_net
        tell client "connect c $at 5000"; want EHOSTUNREACH 0 500
        lab route off $lab_net; lab route prohibit $lab_net
        tell client "connect c $at 5000"; want EACCES 0 500
        # Nothing says what a blackhole is; Linux calls the address invalid.
        lab route off $lab_net; lab route blackhole $lab_net
        tell client "connect c $at 5000"; want 'EINVAL|ENETUNREACH' 0 500
        lab route off $lab_net
    done
}
silence_is_etimedout_at_the_limit() {
    lab reject drop 5000
    start a client
    tell client 'connect c 10.200.0.2:5000 200'; want ETIMEDOUT 200 350
    same attempts 1 "$(field attempts)"
    tell client 'connect c [fd20::2]:5000 200'; want ETIMEDOUT 200 350
    asked client 'start c 10.200.0.2:5000'
    tell client 'finish c 0'; want EAGAIN 0 100
    tell client 'finish c 200'; want ETIMEDOUT 200 350
    lab reject off
    start b server
    asked server 'listen l :5000'
    asked client 'finish c 5000' # its next SYN, one second after the first, gets through
    asked client 'connect d 10.200.0.2:5000 1000'
}
own_link_down_is_enetunreach_at_once() {
    lab link down a
    start a client
    tell client 'connect c 10.200.0.2:5000 5000'; want ENETUNREACH 0 500
    tell client 'connect c [fd20::2]:5000 5000'; want 'ENETUNREACH|EADDRNOTAVAIL' 0 500
}
# Nobody answers who has the address: three tries, one a second.
peers_link_down_is_ehostunreach() { lab link down b; dial EHOSTUNREACH EHOSTUNREACH 2000 8000; }
silent_neighbour_is_ehostunreach() { lab partition; dial EHOSTUNREACH EHOSTUNREACH 2000 8000; }
own_firewall_is_eacces_for_datagrams() {
    lab eperm 5000
    start a client
    asked client 'bind u :0'
    tell client 'sendto u 10.200.0.2:5000 text:x 1000'; want EACCES 0 500
    same os 1 "$(field os)"
    tell client 'sendto u [fd20::2]:5000 text:x 1000'; want EACCES 0 500
    asked client 'sendto u 10.200.0.2:5001 text:x 1000'
    tell client 'connect c 10.200.0.2:5000 200'; want ETIMEDOUT 200 350
}
closed_port_of_a_datagram_peer_is_refused() {
    start a client
    for at in 10.200.0.2:5000 '[fd20::2]:5000'; do
        asked client "connect c $at 1000 type=dgram"
        asked client 'send c text:x 1000'
        tell client 'recv c 10 3000'; want ECONNREFUSED 0 2000
        asked client 'close c'
        asked client 'bind u :0'
        asked client "sendto u $at text:x 1000"
        tell client 'recvfrom u 10 300'; want ETIMEDOUT 300 900
        asked client 'close u'
    done
}
live_connection_outlasts_unreachable_answers() {
    connected
    lab reject host 5000
    asked client 'sendall c text:hello 1000'
    tell client 'recv c 10 300'; want ETIMEDOUT 300 900
    lab reject off
    asked server 'recv s 10 10000'
    same bytes 68656c6c6f "$(field hex)"
    asked server 'sendall s text:back 1000'
    asked client 'recv c 10 5000'
}

lab_run closed_port_is_refused reset_is_refused port_unreachable_is_refused \
    host_unreachable_is_named net_unreachable_is_named prohibited_is_named \
    no_route_is_enetunreach_at_once routes_refuse_by_name silence_is_etimedout_at_the_limit \
    own_link_down_is_enetunreach_at_once peers_link_down_is_ehostunreach \
    silent_neighbour_is_ehostunreach \
    own_firewall_is_eacces_for_datagrams closed_port_of_a_datagram_peer_is_refused \
    live_connection_outlasts_unreachable_answers
