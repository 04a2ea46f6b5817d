#!/bin/sh
# Links that lose, double, delay and mix up what they carry: the bytes arrive all the same.
. "$(dirname "$0")/lab.sh"

transfer() { # ADDRESS BYTES: one way by sendall, back by sendfile
    connected "$1"
    say client "sendall c random:$2:1 40000"
    asked server "exact s $2 40000"
    crc=$(field crc)
    hear client; want OK
    same crc "$crc" "$(field crc)"
    head -c "$2" /dev/urandom >"$lab_tmp/file"
    say server "sendfile s $lab_tmp/file 0 $2 40000"
    asked client "exact c $2 40000"
    crc=$(field crc)
    hear server; want OK
    same 'crc of the file' "$(python3 -c 'import sys, zlib
print("%08x" % zlib.crc32(open(sys.argv[1], "rb").read()))' "$lab_tmp/file")" "$crc"
    asked client 'shutdown c write'
    asked server 'recvall s 40000'
    asked server 'graceful s 0 20000'
    asked client 'recvall c 20000'
    same rest 0 "$(field n)"
}
four_mib_cross_a_slow_link_with_loss() {
    lab rate 40000
    lab loss 1
    transfer 10.200.0.2:5000 4194304
}
four_mib_cross_with_loss_over_ipv6() { lab loss 1; transfer '[fd20::2]:5000' 4194304; }
every_tenth_packet_lost_is_no_harm() { lab nth 10; transfer 10.200.0.2:5000 500000; }
cut_and_healed_link_goes_on() {
    connected
    lab partition
    say client 'sendall c random:300000:1 20000'
    tell server 'recv s 10 300'; want ETIMEDOUT 300 900
    lab heal
    asked server 'exact s 300000 20000'
    crc=$(field crc)
    hear client; want OK
    same crc "$crc" "$(field crc)"
}
lost_large_packets_leave_limits_and_small_ones() {
    connected
    lab hole 1300 b
    asked client 'sendall c text:small 1000'
    asked server 'recv s 10 2000'
    tell client 'sendall c zero:30000000 500'; want ETIMEDOUT 500 1500
    tell server 'recv s 10 100'; want ETIMEDOUT 100 900
    asked server 'sendall s text:back 1000'
    asked client 'recv c 10 2000'
    lab hole off
    asked server 'recv s 10 10000'
}
doubled_datagrams_are_two() {
    lab dup on
    start b server
    start a client
    asked server 'bind u :5000'
    asked client 'bind u :0'
    asked client 'sendto u 10.200.0.2:5000 text:x 1000'
    asked server 'recvfrom u 10 1000'
    asked server 'recvfrom u 10 1000'
    tell server 'recvfrom u 10 200'; want ETIMEDOUT 200
}
query_survives_loss() {
    lab loss 40
    start b server
    start a client
    asked server 'bind u :5000'
    asked client 'bind u :0'
    say server 'echofrom u 1000 30000' # until the end of the test
    for n in 1 2 3 4 5; do
        asked client "query u 10.200.0.2:5000 text:ask$n 12 5"
    done
}

# The link of tunlink.py, which delays: 10.201.0.x.
delayed() {
    [ -w /dev/net/tun ] || skip "no /dev/net/tun"
    lab delay --ready "$lab_tmp/up" "$@" 2>"$lab_tmp/delay" &
    link=$!
    until [ -e "$lab_tmp/up" ]; do
        sleep 0.02
        kill -0 $link 2>/dev/null || skip "no device of our own: $(tail -n 1 "$lab_tmp/delay")"
    done
}
delay_counts_against_the_limit() {
    delayed --delay 150
    start b server
    start a client
    asked server 'listen l :5000'
    tell client 'connect c 10.201.0.2:5000 200'; want ETIMEDOUT 200 350
    asked client 'connect c 10.201.0.2:5000 5000' 295 2000
    asked server 'bind u :5000'
    asked client 'bind u :0'
    say server 'echofrom u 1000 20000'
    # Asked at 0, 50 and 150 ms; answered once, at 300. The late answers stay in the queue.
    asked client 'query u 10.201.0.2:5000 text:ask 4 50' 295 2000
}
mixed_up_packets_make_a_straight_stream() {
    delayed --delay 5 --jitter 5 --reorder 5 --dup 5 --loss 0.5
    transfer 10.201.0.2:5000 500000
}

lab_run four_mib_cross_a_slow_link_with_loss four_mib_cross_with_loss_over_ipv6 \
    every_tenth_packet_lost_is_no_harm cut_and_healed_link_goes_on \
    lost_large_packets_leave_limits_and_small_ones doubled_datagrams_are_two \
    query_survives_loss delay_counts_against_the_limit mixed_up_packets_make_a_straight_stream
