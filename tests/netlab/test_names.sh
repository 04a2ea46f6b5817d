#!/bin/sh
# Lookups through name servers that answer, refuse, deny and say nothing.
. "$(dirname "$0")/lab.sh"

asks() { # ADDRESS of the name server
    printf 'nameserver %s\noptions timeout:3 attempts:1\n' "$1" >"$lab_tmp/resolv.conf"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$lab_tmp/hosts"
    printf 'hosts: files dns\n' >"$lab_tmp/nsswitch.conf"
    for file in resolv.conf hosts nsswitch.conf; do
        [ ! -e /etc/$file ] || mount --bind "$lab_tmp/$file" /etc/$file ||
            skip "cannot replace /etc/$file"
    done
    start a client
}
name_server() {
    ip netns exec lab-b python3 "$lab_here/dns.py" 10.200.0.2 >"$lab_tmp/dns" &
    until_line listening "$lab_tmp/dns"
}

good_name_has_all_its_addresses() {
    name_server
    asks 10.200.0.2
    start b server
    asked server 'listen l :5000'
    asked client 'resolve good.test:5000 3000'
    same count 2 "$(field count)"
    case "$answer" in *'addr=10.200.0.2:5000'*) ;; *) fail "no IPv4 address: $answer" ;; esac
    case "$answer" in *'addr=[fd20::2]:5000'*) ;; *) fail "no IPv6 address: $answer" ;; esac
    asked client 'resolve good.test:5000 3000 4'
    same addr 10.200.0.2:5000 "$(field addr)"
    asked client 'resolve good.test:5000 -1 6'
    same addr '[fd20::2]:5000' "$(field addr)"
    asked client 'connect c good.test:5000 3000'
}
unknown_name_is_eai_noname() {
    name_server
    asks 10.200.0.2
    tell client 'resolve no-such.test:80 3000'; want EAI_NONAME 0 2000
    tell client 'connect c no-such.test:80 3000'; want EAI_NONAME 0 2000
    tell client 'resolve no-such.test:80 -1'; want EAI_NONAME 0 2000
}
failing_name_server_is_eai_again() {
    name_server
    asks 10.200.0.2
    tell client 'resolve bad.test:80 8000'; want EAI_AGAIN 0 8000
}
refusing_name_server_is_eai_again() {
    asks 10.200.0.2 # nobody is on port 53
    tell client 'resolve good.test:80 8000'; want EAI_AGAIN 0 8000
}
silent_name_server_ends_at_the_limit() {
    lab reject drop 53
    asks 10.200.0.2
    tell client 'resolve good.test:80 300'; want ETIMEDOUT 300 900
    tell client 'connect c good.test:80 300'; want ETIMEDOUT 300 900
    tell client 'resolve good.test:80 0'; want EAGAIN 0 200
    # What is no name does not ask.
    asked client 'resolve 192.0.2.1:80 300' 0 200
    asked client 'resolve [2001:db8::1]:80 -1' 0 200
    asked client 'resolve localhost:80 1000' 0 900
}
unreachable_name_server_is_eai_again() {
    asks 198.51.100.1
    tell client 'resolve good.test:80 8000'; want EAI_AGAIN 0 8000
    asked client 'resolve 192.0.2.1:80 300' 0 200
}

lab_run good_name_has_all_its_addresses unknown_name_is_eai_noname \
    failing_name_server_is_eai_again refusing_name_server_is_eai_again \
    silent_name_server_ends_at_the_limit unreachable_name_server_is_eai_again
