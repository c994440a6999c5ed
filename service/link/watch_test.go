package link

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"gangway/service/plan"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// pokes collects what a watcher says.
type pokes struct {
	mu      sync.Mutex
	reasons map[string]int
}

func (p *pokes) poke(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reasons == nil {
		p.reasons = map[string]int{}
	}
	p.reasons[reason]++
}

func (p *pokes) count(reason string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reasons[reason]
}

func (p *pokes) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprint(p.reasons)
}

// startWatch watches until the test ends, and sees to it that nothing of it is left then.
func startWatch(t *testing.T, k *Kernel, buffer int, poke func(string)) (stop func()) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.watch(ctx, buffer, poke) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch: %v", err)
		}
		goleak.VerifyNone(t, before)
	})
	t.Cleanup(stop)
	return stop
}

// settled provokes a poke of its own, so that everything before it has been heard.
func settled(t *testing.T, p *pokes) {
	t.Helper()
	before := p.count("rule")
	ip(t, "rule", "add", "priority", "31000", "lookup", "999")
	eventually(t, "the poke for a rule", func() bool { return p.count("rule") > before })
	before = p.count("rule")
	ip(t, "rule", "del", "priority", "31000")
	eventually(t, "the poke for a rule's deletion", func() bool { return p.count("rule") > before })
}

func TestWatchPokes(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	index := veth(t, "gwtp", "gwtq")
	apply(t, k, bridgeOp("gwt0"), plan.SetLinkUp{Name: "gwt0"}, plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index})
	eventually(t, "carrier", func() bool { l, _ := observeLink(t, k, "gwtp"); return l.Carrier })
	var p pokes
	stop := startWatch(t, k, watchBuffer, p.poke)
	eventually(t, "the first poke", func() bool { return p.count("watching") == 1 })
	for _, c := range []struct {
		name, reason string
		do           func()
	}{
		{"carrier loss", "link", func() { ip(t, "link", "set", "gwtq", "down") }},
		{"carrier", "link", func() { ip(t, "link", "set", "gwtq", "up") }},
		{"IPv4 address", "address", func() { ip(t, "address", "add", "10.1.1.1/24", "dev", "gwt0") }},
		{"IPv4 address deleted", "address", func() { ip(t, "address", "del", "10.1.1.1/24", "dev", "gwt0") }},
		{"IPv6 address", "address", func() { ip(t, "address", "add", "2001:db8::1/64", "dev", "gwt0", "nodad") }},
		{"IPv6 address deprecated", "address", func() {
			ip(t, "address", "change", "2001:db8::1/64", "dev", "gwt0", "valid_lft", "1000", "preferred_lft", "0")
		}},
		{"route", "route", func() { ip(t, "route", "add", "10.5.0.0/16", "dev", "gwt0", "table", "26450") }},
		{"route deleted", "route", func() { ip(t, "route", "del", "10.5.0.0/16", "dev", "gwt0", "table", "26450") }},
		{"rule", "rule", func() { ip(t, "rule", "add", "priority", "99", "lookup", "main") }},
		{"forwarding off", "sysctl", func() { set(t, "net/ipv4/conf/gwt0/forwarding", "1") }},
		{"forwarding on", "sysctl", func() { set(t, "net/ipv4/conf/gwt0/forwarding", "0") }},
		{"everybody's forwarding", "sysctl", func() { set(t, "net/ipv4/ip_forward", "1") }},
		{"rp_filter", "sysctl", func() { set(t, "net/ipv4/conf/gwt0/rp_filter", "1") }},
		{"alias", "link", func() { ip(t, "link", "set", "gwt0", "alias", "x") }},
		{"isolation", "link", func() { ip(t, "link", "set", "gwtp", "type", "bridge_slave", "isolated", "on") }},
		{"port removed", "link", func() { ip(t, "link", "set", "gwtp", "nomaster") }},
		{"link deleted", "link", func() { ip(t, "link", "del", "gwtp") }},
	} {
		settled(t, &p)
		before := p.count(c.reason)
		c.do()
		eventually(t, "a poke of "+c.reason+" for "+c.name, func() bool { return p.count(c.reason) > before })
	}
	stop()
}

func TestWatchIsQuiet(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	index := veth(t, "gwtp", "gwtq")
	apply(t, k, bridgeOp("gwt0"), plan.SetLinkUp{Name: "gwt0"}, plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index})
	ip(t, "address", "add", "10.1.1.1/24", "dev", "gwt0")
	ip(t, "address", "add", "2001:db8::1/64", "dev", "gwt0", "nodad", "valid_lft", "1000", "preferred_lft", "900")
	eventually(t, "the addresses' end of DAD", func() bool {
		have, done := observe(t, k), true
		for _, a := range have.Addresses {
			done = done && !a.Tentative
		}
		l, _ := have.LinkByName("gwt0")
		return done && l.Carrier && len(have.Addresses) >= 5
	})
	var p pokes
	startWatch(t, k, watchBuffer, p.poke)
	eventually(t, "the first poke", func() bool { return p.count("watching") == 1 })
	// The first message about each is news.
	ip(t, "address", "change", "2001:db8::1/64", "dev", "gwt0", "valid_lft", "999", "preferred_lft", "899")
	ip(t, "link", "set", "gwtp", "promisc", "on")
	ip(t, "link", "set", "gwtq", "promisc", "on")
	ip(t, "link", "set", "gwt0", "promisc", "on")
	ip(t, "link", "set", "gwtp", "type", "bridge_slave", "learning", "on")
	settled(t, &p)
	before := p.count("link") + p.count("address") + p.count("route") + p.count("sysctl")

	sendFrames(t, "gwtq", 200)
	port, _ := observeLink(t, k, "gwtp")
	macs, err := k.LearnedMACs(t.Context(), port.Master)
	must(t, err)
	if macs[port.Index] == "" {
		t.Error("the bridge learned nothing")
	}
	ip(t, "address", "change", "2001:db8::1/64", "dev", "gwt0", "valid_lft", "2000", "preferred_lft", "1900")
	ip(t, "link", "set", "gwtp", "promisc", "off")
	ip(t, "link", "set", "gwt0", "promisc", "off")
	ip(t, "link", "set", "gwt0", "txqueuelen", "99")
	ip(t, "neighbour", "add", "10.1.1.9", "lladdr", "02:00:00:00:00:09", "dev", "gwt0")
	ip(t, "neighbour", "del", "10.1.1.9", "dev", "gwt0")
	ip(t, "route", "add", "local", "10.99.0.1", "dev", "lo", "table", "local")
	ip(t, "-6", "route", "add", "2001:db8:1::/48", "dev", "gwt0")
	settled(t, &p)
	if after := p.count("link") + p.count("address") + p.count("route") + p.count("sysctl"); after != before {
		t.Errorf("%d pokes for what is irrelevant: %s", after-before, p.all())
	}
}

// sendFrames makes the bridge behind the interface's other end learn n addresses,
// 02:00:00:00:00:00 and up.
func sendFrames(t *testing.T, ifname string, n int) {
	t.Helper()
	l, err := netlink.LinkByName(ifname)
	must(t, err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	for i := range n {
		frame := append(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, byte(i), 0x88, 0xb5}, make([]byte, 46)...)
		if i == n-1 { // later than the rest by more than a tick of the bridge's clock
			time.Sleep(50 * time.Millisecond)
		}
		must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}))
	}
}

// A burst that doesn't fit into the socket's buffer loses messages; Watch tells so.
func TestWatchSurvivesOverrun(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	var p pokes
	hold, held := make(chan struct{}), make(chan struct{})
	startWatch(t, k, 4096, func(reason string) {
		if reason == "rule" && p.count("rule") == 0 {
			close(held)
			<-hold
		}
		p.poke(reason)
	})
	eventually(t, "the first poke", func() bool { return p.count("watching") == 1 })
	ip(t, "rule", "add", "priority", "31001", "lookup", "999")
	<-held
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	for i := range 200 {
		must(t, netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 3, 0, byte(i)), Mask: net.CIDRMask(32, 32)}}))
	}
	close(hold)
	eventually(t, "a new subscription", func() bool { return p.count("resubscribed") >= 1 })
	settled(t, &p)
}

// Watch subscribes anew whenever listen returns: it must do so when its socket goes.
func TestListenEndsWithItsSocket(t *testing.T) {
	if !isolated(t) {
		return
	}
	socket, err := subscribe(watchBuffer)
	must(t, err)
	var p pokes
	ended := make(chan error, 1)
	go func() { ended <- listen(t.Context(), socket, p.poke) }()
	settled(t, &p)
	must(t, socket.Close())
	if err := <-ended; err == nil {
		t.Error("listen ended without an error")
	}
	if err := listen(t.Context(), socket, p.poke); err == nil {
		t.Error("listened to a closed socket")
	}
}
