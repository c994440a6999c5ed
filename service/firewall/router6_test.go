package firewall

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

func TestGuestsReachOutside6(t *testing.T) {
	forLaptops6(t, func(t *testing.T, l *laptop) {
		const asked = "[" + server6 + "]:7"
		both(t, l.alice, asked, alice6, alice6)
		if !l.alice.pings(server6) {
			t.Error("no echo")
		}
		// To the other uplink, with netlink messages only.
		rules := saved(l.host, l.firewall)
		atCafe := l.cafe.heard6("2001:db8:1::/64")
		apply(t, l.firewall, add(plan.SetOut6, home6+",wlan0"))
		l.host.run("ip", "-6", "route", "replace", "default", "via", "2001:db8:c::1")
		both(t, l.alice, asked, alice6, alice6)
		if atCafe() == "0" {
			t.Error("nothing came by the other uplink: the test shows nothing")
		}
		apply(t, l.firewall, remove(plan.SetOut6, home6+",wlan0"))
		before := atCafe()
		both(t, l.alice, asked, refused, prohibited)
		if after := atCafe(); after != before {
			t.Errorf("%s packets left by what is no way out, %s before", after, before)
		}
		if saved(l.host, l.firewall) != rules {
			t.Error("the switch has changed rules")
		}
		// carol's network has no way out, and somebody else's bridge is none.
		both(t, l.carol, asked, refused, prohibited)
		both(t, l.alice, "[2001:db8:b::2]:7", refused, prohibited)
	})
}

func TestTranslated6(t *testing.T) {
	forLaptops6(t, func(t *testing.T, l *laptop) {
		atDock := l.dock.heard6("2001:db8:1::/64")
		l.host.run("ip", "addr", "del", "2001:db8:1::2/128", "dev", "eth0")
		apply(t, l.firewall, add(plan.SetNAT6, home6+",eth0"))
		both(t, l.alice, "["+server6+"]:7", "2001:db8:d::2", "2001:db8:d::2")
		if !l.alice.pings(server6) {
			t.Error("no echo")
		}
		if got := atDock(); got != "0" {
			t.Errorf("%s packets came untranslated", got)
		}
	})
}

// From outside guests answer echoes, as far as they have a way out, and nothing else unless they may.
func TestInbound6(t *testing.T) {
	forLaptops6(t, func(t *testing.T, l *laptop) {
		both(t, l.dock, "["+alice6+"]:7", prohibited, prohibited)
		if !l.dock.pings(alice6) {
			t.Error("no echo from a guest (RFC 4890 4.3.1)")
		}
		fromCafe, fromBox := l.alice.heard6("2001:db8:c::/64"), l.alice.heard6("2001:db8:b::/64")
		if !l.dock.silent(carol6) || !l.cafe.silent(alice6) || !l.box.silent(alice6) {
			t.Error("an echo where there is no way out")
		}
		if cafe, box := fromCafe(), fromBox(); cafe != "0" || box != "0" {
			t.Errorf("%s and %s requests came in by what is no way out", cafe, box)
		}
		both(t, l.box, "["+alice6+"]:7", prohibited, prohibited)
		apply(t, l.firewall, add(plan.SetInbound6, home6+",gway0"))
		both(t, l.dock, "["+alice6+"]:7", "2001:db8:d::1", "2001:db8:d::1")
		both(t, l.dock, "["+carol6+"]:7", prohibited, prohibited)
		apply(t, l.firewall, remove(plan.SetInbound6, home6+",gway0"))
		both(t, l.dock, "["+alice6+"]:7", prohibited, prohibited)
	})
}

// Neither an address of nowhere, nor another network's, nor the host's own lets a guest pass.
func TestSpoofedSource6(t *testing.T) {
	forLaptops6(t, func(t *testing.T, l *laptop) {
		atDock := l.dock.heard6("2001:db8:1::/64")
		sources := []string{"2001:db8:99::9", "2001:db8:2::77", "2001:db8:1::2", "2001:db8:d::2"}
		for _, source := range sources {
			l.alice.run("ip", "addr", "add", source+"/128", "dev", "eth0", "nodad")
		}
		// The host knows the way back: it isn't routing that stands in the way.
		l.host.sh("ip -6 route add 2001:db8:99::9 dev gway0; ip -6 route add 2001:db8:2::77 dev gway0")
		// Nor that the guest doesn't find its router: solicitations from those addresses are dropped, too.
		bridge, err := net.InterfaceByName("gway0")
		must(t, err)
		l.alice.run("ip", "neighbour", "replace", "fe80::1", "lladdr", bridge.HardwareAddr.String(), "dev", "eth0", "nud", "permanent")
		told := l.alice.errors6()
		for _, source := range sources {
			for _, network := range []string{"tcp", "udp"} {
				check{l.alice, network, source, "[" + server6 + "]:7", silence}.run(t)
			}
		}
		for _, source := range sources[:2] { // of its own the host hears nothing by itself
			check{l.alice, "udp", source, "[" + l.alice.router() + "]:7", silence}.run(t)
			check{l.alice, "tcp", source, "[" + l.alice.router() + "]:7", silence}.run(t)
		}
		if got := atDock(); got != "0" {
			t.Errorf("%s packets left with the host's address", got)
		}
		// What gets through to the host from carol, who may have all services.
		l.host.sh(`nft add table inet probe; nft add chain inet probe input '{ type filter hook input priority 10; }'
			for a in 2001:db8:2::2 2001:db8:2::10; do nft add rule inet probe input iifname gway1 ip6 saddr $a counter comment $a; done
			ip addr add 2001:db8:2::2/128 dev eth0 nodad`)
		l.carol.run("ip", "addr", "add", "2001:db8:2::2/128", "dev", "eth0", "nodad")
		check{l.carol, "udp", "2001:db8:2::2", "[2001:db8:d::2]:7", silence}.run(t)
		if !l.carol.pings("2001:db8:d::2", "-I", carol6) {
			t.Error("no echo from the host")
		}
		if got := l.host.counted("inet", "probe", "input"); got["2001:db8:2::2"] > 0 || got["2001:db8:2::10"] == 0 {
			t.Errorf("the host took packets from itself of a guest: %v", got)
		}
		if got := told(1, 1); got > 0 {
			t.Errorf("%d answers to a forged source", got)
		}
		check{l.alice, "udp", alice6, "[" + server6 + "]:7", alice6}.run(t)
	})
}

// What guests get of the host, from their own addresses and from link-local ones.
func TestRouterServices6(t *testing.T) {
	forLaptops6(t, func(t *testing.T, l *laptop) {
		if !l.alice.pings("fe80::1%eth0", "-I", "fe80::10%eth0") {
			t.Error("no echo to a link-local address")
		}
		for _, to := range []string{l.alice.router(), "2001:db8:d::2"} {
			if !l.alice.pings(to) {
				t.Errorf("no echo from %s", to)
			}
			both(t, l.alice, "["+to+"]:7", refused, refused)
		}
		l.host.serve("[2001:db8:d::2]:9")
		both(t, l.carol, "[2001:db8:d::2]:9", carol6, carol6) // host-access=all
		both(t, l.host, "["+alice6+"]:7", "2001:db8:1::2", "2001:db8:1::2")
		// Who is about to use the router's address hears that it is taken: it asks from the unspecified one
		// (RFC 4862 5.4.2).
		l.alice.sh("echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip addr add fe80::1/64 dev eth0")
		eventually(t, "the router's address is known to be taken",
			func() bool { return strings.Contains(l.alice.run("ip", "addr", "show", "dev", "eth0"), "dadfailed") })
	})
}

// An interface that forwards for guests alone is nobody else's router; what a bridge of others passes isn't routed.
func TestBorrowed6(t *testing.T) {
	forLaptops6(t, func(t *testing.T, l *laptop) {
		check{l.dock, "udp", "", "[2001:db8:b::2]:7", "2001:db8:d::1"}.run(t) // without us
		apply(t, l.firewall, add(plan.SetBorrowed6, "::/1,eth0"), add(plan.SetBorrowed6, "8000::/1,eth0"))
		both(t, l.dock, "[2001:db8:b::2]:7", silence, silence)
		l.dock.run("ip", "addr", "add", "fd00::9/128", "dev", "eth0", "nodad")
		l.host.run("ip", "-6", "route", "add", "fd00::9", "via", "2001:db8:d::1")
		check{l.dock, "udp", "fd00::9", "[2001:db8:b::2]:7", silence}.run(t)
		both(t, l.alice, "["+server6+"]:7", alice6, alice6)
		check{l.cafe, "udp", "", "[2001:db8:b::2]:7", "2001:db8:c::1"}.run(t)

		peer := newNamespace(t, "peer")
		wire(l.host, "peer0", peer, "eth0")
		l.host.sh(`sysctl -qw net.bridge.bridge-nf-call-ip6tables=1
			ip link add docker0 type bridge forward_delay 0 mcast_snooping 0; ip link set docker0 up
			ip link set peer0 master docker0; ip addr flush dev other0; ip link set other0 master docker0`)
		peer.sh("sysctl -qw net.ipv6.conf.eth0.accept_dad=0; ip addr add 2001:db8:b::3/64 dev eth0 nodad")
		apply(t, l.firewall, plan.InstallChains{}, add(plan.SetBorrowed6, "::/1,docker0"), add(plan.SetBorrowed6, "8000::/1,docker0"))
		if !peer.pings("2001:db8:b::2") {
			t.Error("the frames of somebody else's bridge are dropped")
		}
	})
}

// The uplink's MTU is smaller than the guests', and nobody sends "packet too big".
func TestSegmentSize6(t *testing.T) {
	forLaptops6(t, func(t *testing.T, l *laptop) {
		l.host.run("ip", "link", "set", "eth0", "mtu", "1300")
		const most = 1300 - 60
		var listener net.Listener
		l.dock.do(func() {
			var err error
			if listener, err = net.Listen("tcp6", "["+server6+"]:8"); err != nil {
				panic(err)
			}
		})
		defer listener.Close()
		var client net.Conn
		var err error
		l.alice.do(func() { client, err = net.DialTimeout("tcp6", "["+server6+"]:8", patience) })
		must(t, err)
		defer client.Close()
		accepted, err := listener.Accept()
		must(t, err)
		defer accepted.Close()
		for name, c := range map[string]net.Conn{"guest": client, "server": accepted} {
			raw, err := c.(*net.TCPConn).SyscallConn()
			must(t, err)
			must(t, raw.Control(func(fd uintptr) {
				size, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
				if err != nil || size > most || size < most-40 {
					t.Errorf("the %s's segments have %d bytes (%v), want at most %d", name, size, err, most)
				}
			}))
		}
	})
}
