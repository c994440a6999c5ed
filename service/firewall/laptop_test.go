package firewall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/service/plan"
)

// laptop is a host with two networks of guests, two uplinks and a bridge of somebody else's:
//
//	alice .10 ┐                                    ┌ eth0  192.0.2.2 ─── dock 192.0.2.1
//	bob   .11 ┴ gway0 192.168.231.1 ┐              │                     lo 203.0.113.1
//	                                ├── host ──────┼ wlan0 198.51.100.2 ─ cafe 198.51.100.1
//	carol .10 ─ gway1 192.168.232.1 ┘              │                     lo 203.0.113.1
//	                                               └ other0 172.17.0.1 ── box 172.17.0.2
//
// dock and cafe lead to the same server; box is a container of somebody else's. The default
// route is dock. Guests of gway0 reach services of the host only, those of gway1 all.
type laptop struct {
	host, alice, bob, carol, dock, cafe, box *namespace

	firewall *Firewall
}

const (
	homeNet, labNet = "192.168.231.0/24", "192.168.232.0/24"
	server          = "203.0.113.1"
)

func newLaptop(t *testing.T, program string) *laptop {
	t.Helper()
	l := &laptop{}
	for _, n := range []struct {
		at   **namespace
		name string
	}{{&l.host, "host"}, {&l.alice, "alice"}, {&l.bob, "bob"}, {&l.carol, "carol"},
		{&l.dock, "dock"}, {&l.cafe, "cafe"}, {&l.box, "box"}} {
		*n.at = newNamespace(t, n.name)
	}
	l.host.enter()
	l.host.sh(`
		sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
		sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.ipv4.icmp_ratelimit=0
		ip link add gway0 type bridge forward_delay 0; ip link set gway0 up group %d
		ip link add gway1 type bridge forward_delay 0; ip link set gway1 up group %d
		ip addr add 192.168.231.1/24 dev gway0; ip addr add 192.168.232.1/24 dev gway1`,
		plan.GroupBridge|plan.GroupServices, plan.GroupBridge)
	for _, g := range []struct {
		at              *namespace
		bridge, address string
	}{{l.alice, "gway0", "192.168.231.10"}, {l.bob, "gway0", "192.168.231.11"}, {l.carol, "gway1", "192.168.232.10"}} {
		wire(l.host, g.at.name, g.at, "eth0")
		l.host.run("ip", "link", "set", g.at.name, "master", g.bridge)
		g.at.sh("ip addr add %s/24 dev eth0; ip route add default via %s1", g.address, g.address[:len(g.address)-2])
	}
	for _, u := range []struct {
		at                  *namespace
		ifname, host, there string
	}{{l.dock, "eth0", "192.0.2.2", "192.0.2.1"}, {l.cafe, "wlan0", "198.51.100.2", "198.51.100.1"},
		{l.box, "other0", "172.17.0.1", "172.17.0.2"}} {
		wire(l.host, u.ifname, u.at, "eth0")
		l.host.run("ip", "addr", "add", u.host+"/24", "dev", u.ifname)
		u.at.sh("ip addr add %s/24 dev eth0; ip route add 192.168.0.0/16 via %s", u.there, u.host)
	}
	for _, site := range []*namespace{l.dock, l.cafe} {
		// Counts what arrives with a private source.
		site.sh("ip addr add %s/32 dev lo; iptables-nft -t raw -A PREROUTING -s 192.168.0.0/16", server)
	}
	l.host.sh("ip route add default via 192.0.2.1")
	l.firewall = newFirewall(t, program)
	apply(t, l.firewall, plan.InstallChains{},
		add(plan.SetLocal, homeNet+",gway0"), add(plan.SetLocal, labNet+",gway1"),
		add(plan.SetOut, homeNet+",eth0"), add(plan.SetNAT, homeNet+",eth0"))
	for _, n := range []*namespace{l.host, l.alice, l.bob, l.carol, l.box} {
		n.serve(":7")
	}
	l.dock.serve(server + ":7")
	l.cafe.serve(server + ":7")
	for _, address := range []string{"192.168.231.1", "192.168.232.1", "192.0.2.2"} {
		l.host.serve(address + ":53")
		l.host.serve(address + ":67")
	}
	return l
}

// leaks returns how many packets with a private source reached the site.
func (l *laptop) leaks(site *namespace) string {
	return site.run("sh", "-c", "iptables-nft -t raw -nvxL PREROUTING | tail -1 | awk '{print $1}'")
}

// serve answers at an address, over TCP and UDP, with the address that it was asked from.
func (n *namespace) serve(address string) {
	n.t.Helper()
	var listener net.Listener
	var conn net.PacketConn
	n.do(func() {
		var err error
		if listener, err = net.Listen("tcp"+version(address), address); err != nil {
			panic(err)
		}
		if conn, err = net.ListenPacket("udp"+version(address), address); err != nil {
			panic(err)
		}
	})
	n.t.Cleanup(func() { listener.Close(); conn.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.RemoteAddr())
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				conn.WriteTo([]byte(from.String()), from)
			}
		}
	}()
}

// version returns which IP an address with port is of; one without address is of IPv4.
func version(address string) string {
	if strings.HasPrefix(address, "[") {
		return "6"
	}
	return "4"
}

// What ask returns beside the address that the server saw.
const (
	silence     = "silence"     // no answer
	refused     = "refused"     // TCP reset, ICMP port unreachable
	unreachable = "unreachable" // ICMP network unreachable or prohibited
	prohibited  = "prohibited"  // ICMPv6 administratively prohibited or policy failed
)

// patience is how long an answer may take; silenceAfter, how long none has to come for silence.
const (
	patience     = 10 * time.Second
	silenceAfter = 500 * time.Millisecond
)

// ask asks a server for the address that it sees, from the local address ("" for any).
func (n *namespace) ask(network, from, to string, within time.Duration) string {
	dialer := net.Dialer{Timeout: within}
	if from != "" {
		local := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
		dialer.LocalAddr = net.Addr(net.UDPAddrFromAddrPort(local))
		if network == "tcp" {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(local)
		}
	}
	var answer string
	n.do(func() {
		conn, err := dialer.DialContext(context.Background(), network+version(to), to)
		if err == nil {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(within))
			if network == "udp" {
				_, err = conn.Write([]byte("?"))
			}
		}
		b := make([]byte, 64)
		var k int
		if err == nil {
			k, err = conn.Read(b)
		}
		var timeout net.Error
		switch {
		case err == nil:
			host, _, _ := net.SplitHostPort(string(b[:k]))
			answer = host
		case errors.Is(err, syscall.ECONNREFUSED):
			answer = refused
		case errors.Is(err, syscall.ENETUNREACH):
			answer = unreachable
		case errors.Is(err, syscall.EACCES):
			answer = prohibited
		case errors.As(err, &timeout) && timeout.Timeout():
			answer = silence
		default:
			answer = err.Error()
		}
	})
	return answer
}

// check is one question and the answer that is due.
type check struct {
	who           *namespace
	network, from string
	to, want      string
}

func (c check) run(t *testing.T) {
	t.Helper()
	within := patience
	if c.want == silence {
		within = silenceAfter
	}
	if got := c.who.ask(c.network, c.from, c.to, within); got != c.want {
		t.Errorf("%s asks %s over %s from %q: got %q, want %q", c.who.name, c.to, c.network, c.from, got, c.want)
	}
}

// both checks TCP and UDP.
func both(t *testing.T, who *namespace, to, tcp, udp string) {
	t.Helper()
	check{who, "tcp", "", to, tcp}.run(t)
	check{who, "udp", "", to, udp}.run(t)
}
