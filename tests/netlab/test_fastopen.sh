#!/bin/sh
# TCP Fast Open (RFC 7413): the second connection's data travel in its SYN, by the kernel's count.
. "$(dirname "$0")/lab.sh"

counter() { # SIDE NAME, of /proc/net/netstat
    ip netns exec "lab-$1" awk -v name="$2" '$1 == "TcpExt:" {
        if (!seen) { for (i = 2; i <= NF; i++) column[$i] = i; seen = 1 }
        else print $column[name] }' /proc/net/netstat
}
exchange() {
    asked client "connect c $1 2000 set=FASTOPEN_CONNECT:1"
    asked client 'sendall c text:early 2000'
    asked server 'accept s l 2000'
    asked server 'recv s 10 2000'
    same bytes 6561726c79 "$(field hex)"
    asked server 'sendall s text:reply 2000'
    asked client 'recv c 10 2000'
    asked client 'close c'
    asked server 'close s'
}
second_connection_carries_data_in_its_syn() {
    for s in lab-a lab-b; do ip netns exec $s sysctl -qw net.ipv4.tcp_fastopen=3; done
    start b server
    start a client
    asked client 'supported FASTOPEN_CONNECT'
    same supported 1 "$(field value)"
    asked server 'listen l :5000 set=FASTOPEN:16'
    asked server 'get l FASTOPEN'
    for at in 10.200.0.2:5000 '[fd20::2]:5000'; do
        before=$(counter a TCPFastOpenActive) passive=$(counter b TCPFastOpenPassive)
        exchange "$at" # asks for the cookie
        exchange "$at"
        same 'data in a SYN, sent' $((before + 1)) "$(counter a TCPFastOpenActive)"
        same 'data in a SYN, taken' $((passive + 1)) "$(counter b TCPFastOpenPassive)"
    done
}
switched_off_server_is_an_ordinary_one() {
    ip netns exec lab-a sysctl -qw net.ipv4.tcp_fastopen=3
    ip netns exec lab-b sysctl -qw net.ipv4.tcp_fastopen=0
    start b server
    start a client
    asked server 'listen l :5000'
    exchange 10.200.0.2:5000
    exchange 10.200.0.2:5000
    same 'data in a SYN' 0 "$(counter a TCPFastOpenActive)"
}
switched_off_client_still_connects() {
    for s in lab-a lab-b; do ip netns exec $s sysctl -qw net.ipv4.tcp_fastopen=0; done
    start b server
    start a client
    asked server 'listen l :5000'
    tell client 'connect c 10.200.0.2:5000 2000 set=FASTOPEN_CONNECT:1'; want 'OK|ENOTSUP'
    asked client 'connect c 10.200.0.2:5000 2000'
    asked client 'sendall c text:x 1000'
}

lab_run second_connection_carries_data_in_its_syn switched_off_server_is_an_ordinary_one \
    switched_off_client_still_connects
