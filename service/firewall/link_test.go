package firewall

import (
	"net"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// dock is a host with a network of guests whose bridge is joined to the uplink's by an IPv6-only link:
//
//	guest 2001:db8:a::10 ┐                                      ┌ lan0 ─── lan 2001:db8:a::1
//	other 2001:db8:a::11 ┴ gway0 ── gw6testn = gw6testu ── br0 ─┴ 2001:db8:a::2
//
// Nobody detects duplicate addresses; the bridges don't snoop on multicast.
type dock struct {
	host, guest, other, lan *namespace
	firewall                *Firewall
}

const (
	inner, outer = "gw6testn", "gw6testu"
	hostMAC      = "02:11:11:11:11:11"
	pairScript   = `
		ip link add gw6testn address 02:22:22:22:22:01 type veth peer name gw6testu address 02:22:22:22:22:02
		sysctl -qw net.ipv6.conf.gw6testn.disable_ipv6=1 net.ipv6.conf.gw6testu.disable_ipv6=1
		ip link set gw6testn up master gway0; ip link set gw6testu up master br0`
)

func newDock(t *testing.T, program string) *dock {
	t.Helper()
	d := &dock{}
	for _, n := range []struct {
		at   **namespace
		name string
	}{{&d.host, "host"}, {&d.guest, "guest"}, {&d.other, "other"}, {&d.lan, "lan"}} {
		*n.at = newNamespace(t, n.name)
		(*n.at).sh(`sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0 net.ipv6.icmp.ratelimit=0`)
	}
	d.host.enter()
	d.host.sh(`
		sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0
		ip link add gway0 type bridge forward_delay 0 mcast_snooping 0; ip link set gway0 up group %d
		ip link add br0 address %s type bridge forward_delay 0 mcast_snooping 0; ip link set br0 up
		ip addr add 2001:db8:a::2/64 dev br0 nodad`, plan.GroupBridge|plan.GroupServices, hostMAC)
	for _, n := range []struct {
		at                     *namespace
		ifname, bridge, number string
	}{{d.guest, "guest0", "gway0", "10"}, {d.other, "other0", "gway0", "11"}, {d.lan, "lan0", "br0", "1"}} {
		wire(d.host, n.ifname, n.at, "eth0")
		d.host.run("ip", "link", "set", n.ifname, "master", n.bridge)
		n.at.sh("ip addr add 2001:db8:a::%[1]s/64 dev eth0 nodad; ip addr add 10.0.0.%[1]s/24 dev eth0", n.number)
	}
	d.join(t)
	d.firewall = newFirewall(t, program)
	return d
}

// join makes the pair, and waits until all ports forward: the kernel brings them up by and by.
func (d *dock) join(t *testing.T) {
	t.Helper()
	d.host.sh("%s", pairScript)
	eventually(t, "all ports forward", func() bool { return strings.Count(d.host.run("bridge", "link"), "state forwarding") == 5 })
}

// guardSpec is the guard of the dock's link.
func guardSpec() plan.GuardSpec {
	return plan.GuardSpec{Network: "default", Inner: inner, Outer: outer}
}

func mac(text string) net.HardwareAddr {
	address, err := net.ParseMAC(text)
	if err != nil {
		panic(err)
	}
	return address
}

// station is a raw socket at an interface. What it hears are frames that identify themselves.
type station struct {
	t     testing.TB
	fd    int
	index int

	mu      sync.Mutex
	heard   map[uint16]int
	answers int // to frames that identified themselves
}

// at opens a raw socket that listens until the test ends.
func (n *namespace) station(ifname string) *station {
	n.t.Helper()
	s := &station{t: n.t, heard: map[uint16]int{}}
	n.do(func() {
		link, err := net.InterfaceByName(ifname)
		if err != nil {
			panic(err)
		}
		s.index = link.Index
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL))); err != nil {
			panic(err)
		}
	})
	must(n.t, unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: s.index}))
	must(n.t, unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	must(n.t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(s.fd, b, 0)
			select {
			case <-stop:
				return
			default:
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if err != nil || !ok || link.Pkttype == unix.PACKET_OUTGOING || n < 14 {
				continue
			}
			ours := func(address []byte) bool { return address[0]&^1 == 2 && address[1]|address[2]|address[3] == 0 }
			s.mu.Lock()
			if ours(b[6:]) {
				s.heard[uint16(b[10])<<8|uint16(b[11])]++
			}
			if ours(b) {
				s.answers++
			}
			s.mu.Unlock()
		}
	}()
	n.t.Cleanup(func() { close(stop); <-done; unix.Close(s.fd) })
	return s
}

// send sends a frame with the number in its source address.
func (s *station) send(number int, frame []byte) {
	frame[7], frame[8], frame[9], frame[10], frame[11] = 0, 0, 0, byte(number>>8), byte(number)
	for {
		err := unix.Sendto(s.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: s.index})
		if err == unix.ENOBUFS || err == unix.EAGAIN {
			runtime.Gosched()
			continue
		}
		must(s.t, err)
		return
	}
}

func (s *station) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}

func (s *station) count(number int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard[uint16(number)]
}

var counterLine = regexp.MustCompile(`counter packets (\d+) .*comment "([^"]*)"`)

// dropped returns how much each rule of a chain has dropped, by its name.
func (n *namespace) dropped(chain string) map[string]int {
	n.t.Helper()
	return n.counted("netdev", plan.GuardTable, chain)
}

// counted returns what the rules of a chain have counted, by their names.
func (n *namespace) counted(family, table, chain string) map[string]int {
	n.t.Helper()
	counts := map[string]int{}
	for line := range strings.Lines(n.run("nft", "list", "chain", family, table, chain)) {
		if m := counterLine.FindStringSubmatch(line); m != nil {
			count, err := strconv.Atoi(m[1])
			must(n.t, err)
			counts[m[2]] += count
		}
	}
	return counts
}

// guarded observes and returns the digest of the dock's guard, "none" if there isn't any.
func (d *dock) guarded(t testing.TB) string {
	t.Helper()
	digest, ok := observe(t, d.firewall).Guards["default"]
	if !ok {
		return "none"
	}
	return digest
}

// pings tells whether an answer comes to one of many echo requests until patience ends.
func (n *namespace) pings(to string, args ...string) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := n.try(append([]string{"ping", "-6", "-c1", "-W1", to}, args...)...); err == nil {
			return true
		}
	}
	return false
}

func (n *namespace) silent(to string) bool {
	_, err := n.try("ping", "-6", "-c2", "-i0.2", "-W1", to)
	return err != nil
}
