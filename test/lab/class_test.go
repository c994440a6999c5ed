package lab

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestClasses has a guest send what guests may not, in all the ways that hide it, and tells it apart on the wire.
func TestClasses(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	site := DefaultSites()[1]
	site.Mute = true
	l := Start(t, Options{NoNetworkManager: true, NoPolkit: true, Sites: []SiteOptions{site}})
	bridged(t, l, "br0", "eth0")
	g := addGuest(t, l, "one", "br0", MachineOptions{Sysctl: map[string]string{"net.ipv6.conf.eth0.disable_ipv6": "1"}, MAC: net.HardwareAddr{2, 1, 1, 1, 1, 1}})
	if err := g.WaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	if link, err := g.Netlink().LinkByName(GuestInterface); err != nil || g.MAC.String() != "02:01:01:01:01:01" || link.Attrs().HardwareAddr.String() != g.MAC.String() {
		t.Fatalf("the guest's MAC is %s, eth0 is %+v, %v", g.MAC, link, err)
	}
	c := l.Cable("eth0")
	if c == nil || c.Site.Name != "b" || l.Cable("eth1") != nil {
		t.Fatalf("the cable of eth0 is %+v", c)
	}
	wire, err := c.Capture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ra := DefaultRA(pfx("2001:db8:bad::/64"))
	ra.DNSSL = []SearchInfo{{Domains: []string{"a-domain-that-is-long-enough-to-make-the-frame-longer-than-what-is-kept.of-other-frames.in-captures.example",
		"and-another-one-that-is-long-enough-to-make-the-frame-longer-than-what-is-kept.of-other-frames.in-captures.example"}, Lifetime: time.Hour}}
	frames, want := evasions(t, g, ra)
	if err := g.Send(frames...); err != nil {
		t.Fatal(err)
	}
	last := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
	if err := g.Send(Ethernet(last, g.MAC, 0x88b5, make([]byte, 46))); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Wait(ctx, func(f Frame) bool { return f.EtherType() == 0x88b5 }); err != nil {
		t.Fatal(err)
	}
	got := wire.Classes(func(f Frame) string {
		u, _ := f.Upper6()
		switch {
		case f.Outgoing || !FromMAC(g.MAC)(f):
			return ""
		case RAWith(ra.Prefixes[0].Prefix)(f):
			return "RA with the prefix"
		case IsRA(f):
			return "other RA"
		case IsRedirect(f):
			return "redirect"
		case IsDHCPv6Server(f):
			return "DHCPv6 server"
		case u.Fragmented:
			return "fragment"
		case HasType(EtherVLAN)(f):
			return "VLAN"
		case Not(HasType(EtherIPv6))(f):
			return "not IPv6"
		case About(netip.MustParseAddr("2001:db8:b::7"))(f) && SrcIn(linkLocal64)(f) && DstIn(pfx("ff02::/16"))(f):
			return "solicitation"
		}
		return "harmless"
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if seen := wire.Matching(RAWith(ra.Prefixes[0].Prefix)); len(seen) == 0 || seen[0].Length <= captureBytes || len(seen[0].Data) != seen[0].Length {
		t.Errorf("long advertisements are cut short: %v", seen)
	}
	for _, f := range wire.Matching(IsICMPv6(NeighborSolicitation), FromMAC(g.MAC)) {
		if n, ok := f.Neighbor(); !ok || n.SourceLLA.String() != g.MAC.String() {
			t.Errorf("the solicitation is %+v, %t", n, ok)
		}
	}
	if n := wire.Count(FromMAC(net.HardwareAddr{2, 9, 9, 9, 9, 9}), Incoming); n != 1 {
		t.Errorf("%d frames of a foreign MAC, want 1", n)
	}
	if err := wire.Close(); err != nil {
		t.Error(err)
	}
}

// evasions are what RFC 7113 and RFC 6980 warn of, and what is harmless; and how many of each the wire must show.
func evasions(t *testing.T, g *Guest, ra RA) (frames [][]byte, want map[string]int) {
	t.Helper()
	src, all := LinkLocal(g.MAC), AllNodes
	plain, err := RAFrame(ra, g.MAC, src)
	if err != nil {
		t.Fatal(err)
	}
	message := plain[etherSize+ipv6HeaderSize:]
	send := func(next uint8, payload []byte) []byte {
		return Ethernet(MulticastMAC(all), g.MAC, EtherIPv6, IPv6(src, all, next, 255, payload))
	}
	other, err := RAFrame(RA{}, g.MAC, src)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := RAFrame(ra, net.HardwareAddr{2, 9, 9, 9, 9, 9}, src)
	if err != nil {
		t.Fatal(err)
	}
	target := netip.MustParseAddr("2001:db8:b::7")
	redirect := append(append(make([]byte, 4), target.AsSlice()...), target.AsSlice()...)
	server := UDPv6(netip.AddrPortFrom(src, 547), netip.AddrPortFrom(all, 546), []byte{2, 0, 0, 0})
	snm := SolicitedNode(target)
	frames = [][]byte{
		plain, foreign, other,
		send(protoDstOpts, Extension(protoICMPv6, nil)), // its message is missing
		send(protoHopByHop, append(Extension(protoDstOpts, nil), append(Extension(protoICMPv6, make([]byte, 20)), message...)...)),
		send(protoFragment, Fragment(protoICMPv6, 0, false, 7, message)), // an atomic fragment
		send(protoFragment, Fragment(protoDstOpts, 0, true, 8, Extension(protoICMPv6, nil))),
		send(protoFragment, Fragment(protoDstOpts, 8, false, 8, message)),
		send(protoICMPv6, ICMPv6(src, all, Redirect6, 0, redirect)),
		send(protoUDP, server), send(protoDstOpts, append(Extension(protoUDP, nil), server...)),
		Tagged(plain, 5),
		Ethernet(MulticastMAC(all), g.MAC, EtherARP, make([]byte, 46)),
		Ethernet(MulticastMAC(snm), g.MAC, EtherIPv6, NeighborMessage(src, snm, NeighborSolicitation, 0, target, g.MAC)),
	}
	return frames, map[string]int{"RA with the prefix": 3, "other RA": 1, "redirect": 1, "DHCPv6 server": 2, "fragment": 2, "VLAN": 1, "not IPv6": 2, "solicitation": 1, "harmless": 1}
}

// hasty machines do without DAD.
var hasty = MachineOptions{Sysctl: map[string]string{"net.ipv6.conf.eth0.accept_dad": "0", "net.ipv6.conf.eth0.dad_transmits": "0"}}

// The kernel is the judge of what is built here: it answers, and takes addresses from it.
func TestBuiltPacketsAreValid(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	site := DefaultSites()[1]
	site.Mute = true
	l := Start(t, Options{NoNetworkManager: true, NoPolkit: true, Sites: []SiteOptions{site}})
	bridged(t, l, "br0", "eth0")
	sender, taker := addGuest(t, l, "sender", "br0", hasty), addGuest(t, l, "taker", "br0", hasty)
	for _, g := range []*Guest{sender, taker} {
		if err := g.WaitUp(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := g.WaitIPv6(ctx, linkLocal64); err != nil {
			t.Fatal(err)
		}
	}
	prefix := pfx("2001:db8:bad::/64")
	frame, err := RAFrame(DefaultRA(prefix), sender.MAC, LinkLocal(sender.MAC))
	if err != nil {
		t.Fatal(err)
	}
	if err := sender.Send(frame); err != nil {
		t.Fatal(err)
	}
	taken, _, err := taker.WaitAddress6(ctx, prefix)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := sender.Capture(ctx, GuestInterface)
	if err != nil {
		t.Fatal(err)
	}
	src, snm := LinkLocal(sender.MAC), SolicitedNode(taken)
	if err := sender.Send(Ethernet(MulticastMAC(snm), sender.MAC, EtherIPv6, NeighborMessage(src, snm, NeighborSolicitation, 0, taken, sender.MAC))); err != nil {
		t.Fatal(err)
	}
	answer, err := seen.Wait(ctx, func(f Frame) bool { n, ok := f.Neighbor(); return ok && n.Type == NeighborAdvert && n.Target == taken })
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := answer.Neighbor(); n.TargetLLA.String() != taker.MAC.String() || n.Flags&0x60 != 0x60 {
		t.Errorf("the answer is %+v", n)
	}
	if _, err := taker.ServeEcho(); err != nil {
		t.Fatal(err)
	}
	datagram := UDPv6(netip.AddrPortFrom(src, 4711), netip.AddrPortFrom(LinkLocal(taker.MAC), EchoPort), encodeEcho(5))
	if err := sender.Send(Ethernet(taker.MAC, sender.MAC, EtherIPv6, IPv6(src, LinkLocal(taker.MAC), protoUDP, 64, datagram))); err != nil {
		t.Fatal(err)
	}
	if _, err := seen.Wait(ctx, func(f Frame) bool { from, to := f.UDPPorts(); return from == EchoPort && to == 4711 }); err != nil {
		t.Error("the datagram was not answered:", err)
	}
	ended, cancel := context.WithCancel(ctx)
	w, err := sender.WatchIPv6(ended)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := w.Wait(ctx, "nothing", func(IPv6State) bool { return false }); err == nil {
		t.Error("a watch that has ended goes on waiting")
	}
}

// A capture that has lost frames says so, instead of counting short.
func TestCaptureOwnsUpToLosses(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := Start(t, Options{NoNetworkManager: true, NoPolkit: true})
	c, err := l.Cable("eth0").Capture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Room for a frame or two, and a reader that is not quick enough.
	if err := onSocket(c.file, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) }); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	frames := slices.Repeat([][]byte{Ethernet(mac(1, 0), mac(2, 1), 0x88b5, make([]byte, 1400))}, 100)
	err = l.Laptop.Send("eth0", frames...)
	c.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("closed with %v after %d of 100 frames", err, len(c.Frames()))
	}
}
