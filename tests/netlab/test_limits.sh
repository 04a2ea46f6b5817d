#!/bin/sh
# What the system runs out of: ports, and room in a packet.
. "$(dirname "$0")/lab.sh"

no_port_left_is_eaddrnotavail_and_passes() {
    start b server
    start a client
    asked server 'listen l :5000'
    asked server 'listen m :5001'
    lab ports 50000 50001
    asked client 'connect c 10.200.0.2:5000 1000'
    asked client 'connect d 10.200.0.2:5000 1000'
    tell client 'connect e 10.200.0.2:5000 1000'; want EADDRNOTAVAIL 0 900
    # The same ports serve another destination.
    asked client 'connect f 10.200.0.2:5001 1000'
    asked client 'abort c' # leaves no waiting state behind
    asked client 'connect e 10.200.0.2:5000 1000'
}
no_port_left_to_bind_is_eaddrinuse() {
    start a client
    lab ports 50000 50001
    asked client 'bind u 0.0.0.0:0'
    asked client 'bind v 0.0.0.0:0'
    tell client 'bind w 0.0.0.0:0'; want EADDRINUSE
    asked client 'listen k 0.0.0.0:0'
    asked client 'listen l 0.0.0.0:0'
    tell client 'listen m 0.0.0.0:0'; want EADDRINUSE
    asked client 'close u'
    asked client 'bind w 0.0.0.0:0'
}
port_that_would_dial_itself_is_refused() {
    # With a single port to come from, Linux would connect it to itself.
    lab ports 50000 50000
    start a client
    for at in 127.0.0.1:50000 '[::1]:50000' 10.200.0.1:50000; do
        tell client "connect c $at 2000"; want ECONNREFUSED 0 1000
    done
}
address_of_nobody_is_eaddrnotavail() {
    start a client
    tell client 'listen l 10.200.0.2:5000'; want EADDRNOTAVAIL
    tell client 'bind u [fd20::2]:5000'; want EADDRNOTAVAIL
    tell client 'connect c 10.200.0.2:5000 1000 local=10.200.0.77:0'; want EADDRNOTAVAIL
}
unfragmented_datagram_above_the_mtu_is_emsgsize() {
    lab mtu 1300
    start b server
    start a client
    asked server 'bind u :5000'
    # 1300 less the headers of IP and UDP.
    for row in '10.200.0.2:5000 1272' '[fd20::2]:5000 1252'; do
        at=${row% *} most=${row#* }
        asked client "connect c $at 1000 type=dgram set=DONTFRAG:1"
        asked client 'get c MTU'
        same mtu 1300 "$(field value)"
        tell client "send c zero:$((most + 1)) 1000"; want EMSGSIZE 0 500
        asked client "send c random:$most:1 1000"
        asked server 'recvfrom u 2000 2000'
        same size "$most" "$(field length)"
        asked client 'set c DONTFRAG 0'
        asked client "send c random:8000:1 1000"
        asked server 'recvfrom u 9000 2000'
        same 'size of the pieces' 8000 "$(field length)"
        asked client 'close c'
    done
}
stream_crosses_a_small_mtu() {
    lab mtu 1280
    connected
    say client 'sendall c random:1000000:1 10000'
    asked server 'exact s 1000000 10000'
    crc=$(field crc)
    hear client; want OK
    same crc "$crc" "$(field crc)"
}

lab_run no_port_left_is_eaddrnotavail_and_passes no_port_left_to_bind_is_eaddrinuse \
    port_that_would_dial_itself_is_refused \
    address_of_nobody_is_eaddrnotavail unfragmented_datagram_above_the_mtu_is_emsgsize \
    stream_crosses_a_small_mtu
