package firewall

import (
	"fmt"
	"net"
	"testing"

	"gangway/service/plan"
)

// The prefixes of a laptop's guests by IPv6, and a server's address behind both uplinks.
const (
	home6, lab6 = "2001:db8:1::/64", "2001:db8:2::/64"
	alice6      = "2001:db8:1::10"
	bob6        = "2001:db8:1::11"
	carol6      = "2001:db8:2::10"
	server6     = "2001:db8:5::1"
)

// newLaptop6 is a laptop whose bridges are their guests' IPv6 routers, fe80::1, as for a proxy: no prefix
// is on-link, each guest's address is routed by itself. The host has addresses of the guests' prefixes
// on its uplink:
//
//	alice 2001:db8:1::10 ┐         ┌ eth0  2001:db8:d::2, 2001:db8:1::2 ─ dock 2001:db8:d::1 ┐
//	bob   2001:db8:1::11 ┴ gway0 ──┤                                                         ├ lo 2001:db8:5::1
//	carol 2001:db8:2::10 ─ gway1 ──┼ wlan0 2001:db8:c::2 ──────────────── cafe 2001:db8:c::1 ┘
//	                               └ other0 2001:db8:b::1 ── box 2001:db8:b::2
func newLaptop6(t *testing.T, program string) *laptop {
	t.Helper()
	l := newLaptop(t, program)
	for _, n := range []*namespace{l.host, l.alice, l.bob, l.carol, l.dock, l.cafe, l.box} {
		// A redirect would have guests speak to each other directly.
		n.sh(`for i in /proc/sys/net/ipv6/conf/*; do echo 0 >$i/accept_dad; echo 0 >$i/accept_ra; echo 0 >$i/accept_redirects; done
			sysctl -qw net.ipv6.icmp.ratelimit=0`)
	}
	l.host.sh(`sysctl -qw net.ipv6.conf.all.forwarding=1 net.bridge.bridge-nf-call-ip6tables=0
		for b in gway0 gway1; do ip link set $b type bridge mcast_snooping 0; ip addr add fe80::1/64 dev $b nodad; done`)
	for _, g := range []struct {
		at              *namespace
		bridge, address string
	}{{l.alice, "gway0", alice6}, {l.bob, "gway0", bob6}, {l.carol, "gway1", carol6}} {
		// The address that the kernel made itself isn't used yet: whoever speaks now would take another.
		g.at.sh(`ip -6 addr flush dev eth0 scope link; ip addr add fe80::%s/64 dev eth0 nodad
			ip addr add %s/128 dev eth0 nodad; ip -6 route add default via fe80::1 dev eth0`, g.address[len(g.address)-2:], g.address)
		l.host.run("ip", "-6", "route", "add", g.address, "dev", g.bridge)
	}
	for _, u := range []struct {
		at             *namespace
		ifname, prefix string
		host, there    string
	}{{l.dock, "eth0", "2001:db8:d::", "2", "1"}, {l.cafe, "wlan0", "2001:db8:c::", "2", "1"}, {l.box, "other0", "2001:db8:b::", "1", "2"}} {
		l.host.run("ip", "addr", "add", u.prefix+u.host+"/64", "dev", u.ifname, "nodad")
		u.at.sh("ip addr add %[1]s%[2]s/64 dev eth0 nodad; ip -6 route add default via %[1]s%[3]s", u.prefix, u.there, u.host)
	}
	for _, site := range []*namespace{l.dock, l.cafe} {
		site.run("ip", "addr", "add", server6+"/128", "dev", "lo", "nodad")
		site.serve("[" + server6 + "]:7")
	}
	l.host.sh("ip addr add 2001:db8:1::2/128 dev eth0 nodad; ip -6 route add default via 2001:db8:d::1")
	for _, n := range []*namespace{l.host, l.alice, l.bob, l.carol, l.box} {
		n.serve("[::]:7")
	}
	apply(t, l.firewall, add(plan.SetLocal6, home6+",gway0"), add(plan.SetLocal6, lab6+",gway1"), add(plan.SetOut6, home6+",eth0"))
	return l
}

func forLaptops6(t *testing.T, test func(t *testing.T, l *laptop)) {
	for _, program := range backends {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			test(t, newLaptop6(t, program))
		})
	}
}

// heard6 counts, in the namespace, what comes in with a source of the prefix; call it to read the count.
func (n *namespace) heard6(prefix string) func() string {
	n.run("ip6tables-nft", "-t", "raw", "-A", "PREROUTING", "-s", prefix)
	return func() string {
		return n.run("sh", "-c", "ip6tables-nft -t raw -nvxL PREROUTING | awk '/"+prefix[:12]+"/ {printf \"%s\", $1}'")
	}
}

// router is the address of a guest's router. The zone is a number: Go remembers what names stand for, of
// whichever namespace.
func (n *namespace) router() string {
	n.t.Helper()
	var index int
	n.do(func() {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			panic(err)
		}
		index = link.Index
	})
	return fmt.Sprintf("fe80::1%%%d", index)
}
