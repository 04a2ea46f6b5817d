#!/bin/sh
# netlab.sh - two hosts in one machine, joined by a link that can be broken in every way.
#
# Two network namespaces and a veth pair. Side a is 10.200.0.1 and fd20::1, side b is 10.200.0.2 and
# fd20::2; the device is v0 on both. Needs iproute2, nftables, util-linux, and python3 for "delay";
# the kernel needs no netem. Root, or "sandbox", which does with user namespaces.
#
#     netlab.sh sandbox sh test.sh      # a private copy; everything is gone at its end
#     # inside test.sh:
#     netlab.sh up
#     netlab.sh exec b ./echo_server 5000 &
#     netlab.sh loss 5
#     netlab.sh exec a ./client 10.200.0.2 5000
#     netlab.sh clear; netlab.sh down
#
# Without "sandbox": be root, give each parallel run its own NETLAB_NAME, end the servers yourself.
# SIDE is a or b; where it may be left out, both or the usual one is meant.
#
#     loss PERCENT [SIDE]   nth N [SIDE]    drop TCP and UDP at random (0.1 steps), or each N-th
#     dup on|off [SIDE]                     each UDP packet that SIDE sends leaves twice
#     partition [SIDE]      heal [SIDE]     drop everything that arrives at SIDE, without a word
#     link up|down SIDE                     own side: ENETUNREACH; peer's: EHOSTUNREACH after 3 s
#     reject KIND PORT [SIDE]               answer with reset, port, host, net, admin; drop; or off
#     route KIND NET [SIDE]                 blackhole EINVAL, unreachable, prohibit EACCES; or off
#     eperm PORT|off [SIDE]                 own sends to PORT fail with EPERM
#     rst SIDE [PORT]                       kill connections: ECONNABORTED there, ECONNRESET here
#     fast-timeouts                         TCP's own ETIMEDOUT after 3 s (connect) and 7 s (data)
#     mtu N [SIDE]          hole N|off [SIDE]    small packets; larger ones vanish
#     rate KBIT|off [SIDE]                  a slow link
#     ports LOW HIGH [SIDE]                 few ephemeral ports: EADDRNOTAVAIL, EADDRINUSE
#     delay ARGUMENTS                       a second link with delay, jitter, reordering: tunlink.py
#     clear, status, down
set -eu
LAB=${NETLAB_NAME:-lab}
DEV=v0
me=$(readlink -f "$0")

die() { echo "netlab: $*" >&2; exit 2; }
ns() { case "${1:-}" in a|b) echo "$LAB-$1" ;; *) die "side must be a or b, not '${1:-}'" ;; esac; }
in_ns() { _n=$(ns "$1"); shift; ip netns exec "$_n" "$@"; }
sides() {
    case "${1:-both}" in
        both) echo "a b" ;;
        a|b) echo "$1" ;;
        *) die "side must be a, b or both" ;;
    esac
}

# chain TABLE SIDE FAMILY HOOK PRIORITY RULE...: replace TABLE by one chain that holds RULE.
chain() {
    _t=$1 _s=$2 _f=$3 _h=$4 _p=$5; shift 5
    unchain "$_t" "$_s" "$_f"
    _at=; [ "$_f" = netdev ] && _at="device \"$DEV\""
    in_ns "$_s" nft -f - <<EOF
table $_f $_t {
    chain c {
        type filter hook $_h $_at priority $_p; policy accept;
        $*
    }
}
EOF
}
unchain() { in_ns "$2" nft delete table "$3" "$1" 2>/dev/null || true; }

# both_families ACTION: the two rules that say it for TCP and UDP over IPv4 and over IPv6.
both_families() {
    echo "ip protocol { tcp, udp } $1"
    echo "ip6 nexthdr { tcp, udp } $1"
}

cmd_up() {
    _a=$(ns a) _b=$(ns b)
    ip netns add "$_a"
    ip netns add "$_b" || { ip netns del "$_a"; exit 1; }
    ip -n "$_a" link add $DEV type veth peer name $DEV netns "$_b"
    n=1
    for s in a b; do
        _n=$(ns "$s")
        # No duplicate address detection, or IPv6 addresses could not be used for two seconds; they
        # stay when the link goes down; no limit on ICMP answers, which the tests wait for.
        in_ns "$s" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.$DEV.accept_dad=0 \
            net.ipv6.conf.all.keep_addr_on_down=1 net.ipv6.conf.$DEV.keep_addr_on_down=1 \
            net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 || true
        # The same everywhere, whatever the machine prefers; cubic may not be had in a namespace.
        in_ns "$s" sysctl -qw net.ipv4.tcp_congestion_control=reno 2>/dev/null || true
        ip -n "$_n" link set lo up
        ip -n "$_n" addr add 10.200.0.$n/24 brd + dev $DEV
        ip -n "$_n" addr add fd20::$n/64 dev $DEV nodad
        n=2
    done
    for s in a b; do ip -n "$(ns "$s")" link set $DEV up; done
    # Multicast and 255.255.255.255 need a route; anything else stays unreachable.
    for s in a b; do
        ip -n "$(ns "$s")" route add 224.0.0.0/4 dev $DEV
        ip -n "$(ns "$s")" route add 255.255.255.255 dev $DEV
    done
}
cmd_down() { for s in a b; do ip netns del "$(ns "$s")" 2>/dev/null || true; done; }
cmd_exec() { s=$(ns "${1:-}"); shift; exec ip netns exec "$s" "$@"; }

cmd_loss() {
    p=$(awk -v p="${1:?percent}" 'BEGIN { printf "%d", p * 10 + 0.5 }')
    for s in $(sides "${2:-both}"); do
        if [ "$p" -eq 0 ]; then unchain netlab_loss "$s" netdev
        else chain netlab_loss "$s" netdev ingress 0 \
            "$(both_families "numgen random mod 1000 < $p counter drop")"; fi
    done
}
cmd_nth() {
    for s in $(sides "${2:-both}"); do
        if [ "${1:?n}" -eq 0 ]; then unchain netlab_nth "$s" netdev
        else chain netlab_nth "$s" netdev ingress 1 \
            "$(both_families "numgen inc mod $1 0 counter drop")"; fi
    done
}
cmd_dup() {
    for s in $(sides "${2:-both}"); do
        # The mark keeps the copy from being copied.
        if [ "${1:?on|off}" = on ]; then chain netlab_dup "$s" netdev egress 0 \
            "meta mark != 77 ip protocol udp meta mark set 77 dup to $DEV
            meta mark != 77 ip6 nexthdr udp meta mark set 77 dup to $DEV"
        else unchain netlab_dup "$s" netdev; fi
    done
}
cmd_partition() {
    for s in $(sides "${1:-both}"); do
        chain netlab_part "$s" netdev ingress -10 "counter drop"
    done
}
cmd_heal() { for s in $(sides "${1:-both}"); do unchain netlab_part "$s" netdev; done; }

cmd_reject() {
    s=${3:-b} port=${2:-} both="meta l4proto { tcp, udp } th dport ${2:-}"
    case "${1:-}" in
        off) unchain netlab_rej "$s" inet; return ;;
        reset) r="tcp dport $port reject with tcp reset" ;;
        port) r="$both reject with icmpx port-unreachable" ;;
        host) r="$both reject with icmpx host-unreachable" ;;
        net) r="$both reject with icmpx no-route" ;;
        admin) r="$both reject with icmpx admin-prohibited" ;;
        drop) r="$both drop" ;;
        *) die "reject off|reset|port|host|net|admin|drop PORT [SIDE]" ;;
    esac
    [ -n "$port" ] || die "reject needs a port"
    chain netlab_rej "$s" inet input 0 "$r"
}
cmd_eperm() {
    s=${2:-a}
    if [ "${1:?port|off}" = off ]; then unchain netlab_perm "$s" inet
    else chain netlab_perm "$s" inet output 0 "meta l4proto { tcp, udp } th dport $1 drop"; fi
}
# One segment in a packet is forced, or offloading would hide the real sizes from the rule.
cmd_hole() {
    for s in $(sides "${2:-both}"); do
        if [ "${1:?bytes|off}" = off ]; then unchain netlab_hole "$s" inet
        else chain netlab_hole "$s" inet prerouting -300 "meta length > $1 counter drop"; fi
    done
    segments=1; [ "$1" = off ] && segments=65535
    for s in a b; do ip -n "$(ns "$s")" link set $DEV gso_max_segs $segments; done
}
cmd_route() {
    s=${3:-a}
    case "${1:-}" in
        off) for k in blackhole unreachable prohibit; do
                ip -n "$(ns "$s")" route del $k "$2" 2>/dev/null || true
            done ;;
        blackhole|unreachable|prohibit) ip -n "$(ns "$s")" route add "$1" "$2" ;;
        *) die "route off|blackhole|unreachable|prohibit PREFIX [SIDE]" ;;
    esac
}
cmd_rst() {
    which=; [ -z "${2:-}" ] || which="( sport = :$2 or dport = :$2 )"
    # shellcheck disable=SC2086
    in_ns "${1:?side}" ss -K -t state established $which >/dev/null
}
cmd_link() { ip -n "$(ns "${2:?side}")" link set $DEV "${1:?up|down}"; }
cmd_mtu() {
    for s in $(sides "${2:-both}"); do ip -n "$(ns "$s")" link set $DEV mtu "${1:?mtu}"; done
}
cmd_rate() {
    for s in $(sides "${2:-both}"); do
        in_ns "$s" tc qdisc del dev $DEV root 2>/dev/null || true
        [ "${1:?kbit|off}" = off ] ||
            in_ns "$s" tc qdisc add dev $DEV root tbf rate "${1}kbit" burst 16kb latency 100ms
    done
}
cmd_ports() { in_ns "${3:-a}" sysctl -qw "net.ipv4.ip_local_port_range=$1 $2"; }
cmd_fast_timeouts() {
    for s in a b; do in_ns "$s" sysctl -qw net.ipv4.tcp_syn_retries=1 net.ipv4.tcp_retries2=3; done
}
cmd_clear() {
    for s in a b; do
        for t in netlab_loss netlab_nth netlab_dup netlab_part; do unchain $t "$s" netdev; done
        for t in netlab_rej netlab_perm netlab_hole; do unchain $t "$s" inet; done
        in_ns "$s" tc qdisc del dev $DEV root 2>/dev/null || true
        ip -n "$(ns "$s")" link set $DEV mtu 1500 gso_max_segs 65535 up
        in_ns "$s" sysctl -qw net.ipv4.tcp_syn_retries=6 net.ipv4.tcp_retries2=15 \
            "net.ipv4.ip_local_port_range=32768 60999"
    done
}
cmd_status() {
    for s in a b; do
        echo "[$s]"
        ip -n "$(ns "$s")" -br addr
        in_ns "$s" nft list ruleset | grep -E 'table|counter|reject|drop' || true
        in_ns "$s" tc qdisc show dev $DEV
    done
}
cmd_delay() { exec python3 "$(dirname "$me")/tunlink.py" "$(ns a)" "$(ns b)" "$@"; }

# A pid namespace, so that servers in the background end too; /run is ours, so that the names of
# the namespaces are; without root also a user namespace.
cmd_sandbox() {
    [ $# -gt 0 ] || die "sandbox COMMAND..."
    u=; [ "$(id -u)" = 0 ] || u=-Ur
    # shellcheck disable=SC2016
    exec unshare $u -n -m -p -f --kill-child --mount-proc sh -c '
        mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up && exec "$@"' \
        netlab "$@"
}

[ $# -gt 0 ] || { sed -n '2,/^set -eu/{/^#/p}' "$me" >&2; exit 2; }
c=$(echo "$1" | tr - _); shift
case "$c" in
    up|down|exec|loss|nth|dup|partition|heal|reject|eperm|hole|route|rst|link|mtu|rate|ports) ;;
    fast_timeouts|clear|status|delay|sandbox) ;;
    *) die "unknown command $c" ;;
esac
"cmd_$c" "$@"
