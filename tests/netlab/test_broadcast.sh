#!/bin/sh
# Broadcast over a link: three of three arrive, and only with the flag they leave.
. "$(dirname "$0")/lab.sh"

hears_three() { # ADDRESS of the receiver, ADDRESS to send to
    start b receiver
    start a sender
    asked receiver "bind u $1"
    asked sender 'bind u 0.0.0.0:0'
    port=$(field addr); port=${port##*:}
    tell sender "sendto u $2 text:x 1000"; want EACCES 0 500
    asked sender 'set u BROADCAST 1'
    for n in 1 2 3; do asked sender "sendto u $2 text:$n 1000"; done
    for n in 1 2 3; do
        asked receiver 'recvfrom u 10 2000'
        same datagram 3$n "$(field hex)"
        same sender "10.200.0.1:$port" "$(field sender)"
    done
    tell receiver 'recvfrom u 10 0'; want EAGAIN
    asked sender 'set u BROADCAST 0'
    tell sender "sendto u $2 text:x 1000"; want EACCES 0 500
}
limited_broadcast_arrives_three_of_three() { hears_three 0.0.0.0:9999 255.255.255.255:9999; }
subnet_broadcast_arrives_three_of_three() { hears_three 0.0.0.0:9999 10.200.0.255:9999; }
dual_socket_hears_broadcast() { hears_three :9999 255.255.255.255:9999; }
dual_socket_sends_broadcast() {
    start b receiver
    start a sender
    asked receiver 'bind u 0.0.0.0:9999'
    asked sender 'bind u :0 set=BROADCAST:1'
    asked sender 'sendto u 255.255.255.255:9999 text:x 1000'
    asked receiver 'recvfrom u 10 2000'
}
connected_socket_sends_broadcast() {
    start b receiver
    start a sender
    asked receiver 'bind u 0.0.0.0:9999'
    tell sender 'connect c 10.200.0.255:9999 1000 type=dgram'; want EACCES
    asked sender 'connect c 10.200.0.255:9999 1000 type=dgram set=BROADCAST:1'
    asked sender 'send c text:x 1000'
    asked receiver 'recvfrom u 10 2000'
}

lab_run limited_broadcast_arrives_three_of_three subnet_broadcast_arrives_three_of_three \
    dual_socket_hears_broadcast dual_socket_sends_broadcast connected_socket_sends_broadcast
