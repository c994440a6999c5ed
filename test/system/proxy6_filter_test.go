package system_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// unreachable fails if the host gets an answer to a ping within a second and a half.
func (w *world) unreachable(from *lab.Host, to netip.Addr) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 1500*time.Millisecond)
	defer cancel()
	if err := from.Ping(ctx, to); err == nil {
		w.t.Errorf("%s reaches %s, and should not", from.Name, to)
	}
}

// connects opens a TCP connection, and has a line echoed by it.
func (w *world) connects(from *lab.Host, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	conn, err := from.DialTCP(ctx, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err = conn.Write([]byte("x\n")); err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = conn.Read(make([]byte, 2))
	}
	return err
}

// With inbound=deny the link's neighbours and the internet begin nothing with a guest but pings, and are told so at once; what the guest
// began goes on, ICMPv6 errors included. With allow they do.
func TestProxiedInbound(t *testing.T) {
	t.Parallel()
	w := onWiFi(t, lab.Options{})
	st, stA := w.station("a", "lan", prefixA, lab.MachineOptions{})
	g, addr := w.guestWith("vm1", "default", prefixA, lab.MachineOptions{})
	_, err := g.ServeEcho()
	w.must(err)
	w.known(addr)
	echo := netip.AddrPortFrom(addr, lab.EchoPort)
	outsiders := []*lab.Host{st.Host, w.Internet.Host}
	for _, inbound := range []string{"deny", "allow", "deny"} {
		w.call(w.network, "Network.Update", dict("inbound", inbound))
		for _, from := range outsiders {
			w.pingable(from, addr)
			if inbound == "allow" {
				w.eventually(from.Name+" connects to the guest", func() error { return w.connects(from, echo) })
				_, err := from.Reach(w.soon(), echo)
				w.must(err)
				continue
			}
			var timeout net.Error
			if err := w.connects(from, echo); err == nil {
				t.Errorf("with inbound=deny %s connects to the guest", from.Name)
			} else if errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("%s isn't told that it must not connect: %v", from.Name, err)
			}
			w.cannotReach(from, echo)
		}
		// The host may always, and so may the guest.
		w.must(w.connects(w.Laptop, echo))
		for _, to := range []netip.AddrPort{st.Echo(stA), lab.EchoIPv6} {
			w.must(w.connects(g.Host, to))
			_, err := g.Reach(w.soon(), to)
			w.must(err)
		}
		for _, to := range []netip.Addr{stA, lab.InternetIPv6} {
			conn, err := g.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(to, 9999)) // nobody listens there
			w.must(err)
			w.eventually(fmt.Sprintf("the guest hears that nobody listens at %s", to), func() error {
				_, _ = conn.Write([]byte("x")) // fails with what was heard of the one before
				_ = conn.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
					return fmt.Errorf("it heard %v", err)
				}
				return nil
			})
			conn.Close()
		}
	}
	w.noViolations("a")
}

// echoRequest is a frame by which a machine sends an echo request from whatever address to another by its router.
func echoRequest(via, own net.HardwareAddr, src, dst netip.Addr) []byte {
	return lab.Ethernet(via, own, lab.EtherIPv6, lab.IPv6(src, dst, 58, 64, lab.ICMPv6(src, dst, lab.EchoRequest6, 0, []byte{0x77, 0x77, 0, 1, 1, 2, 3, 4})))
}

// hardware is the MAC address of an interface of the laptop's.
func (w *world) hardware(ifname string) net.HardwareAddr {
	w.t.Helper()
	link, err := w.Laptop.Netlink().LinkByName(ifname)
	w.must(err)
	return link.Attrs().HardwareAddr
}

// What guests of proxied networks may not: reach those of another network, or, isolated, each other; send from addresses that aren't of
// the link; be routers for the host or anybody.
func TestProxiedGuestsKeepToThemselves(t *testing.T) {
	t.Parallel()
	w := onWiFi(t, lab.Options{})
	other := w.create("other", dict("isolate-ports", true))
	w.waitProperty(other, "IPv6State", "proxy")
	st, stA := w.station("a", "lan", prefixA, lab.MachineOptions{})
	hostA, err := w.Laptop.WaitAddress(w.soon(), "wlan0", prefixA)
	w.must(err)
	g, addrG := w.guestWith("vm1", "default", prefixA, lab.MachineOptions{})
	peer, addrPeer := w.guestWith("vm2", "default", prefixA, lab.MachineOptions{})
	h, addrH := w.guestWith("vm3", "other", prefixA, lab.MachineOptions{})
	i, addrI := w.guestWith("vm4", "other", prefixA, lab.MachineOptions{})
	for _, a := range []netip.Addr{addrG, addrPeer, addrH, addrI} {
		w.known(a)
		w.pingable(st.Host, a)
	}
	w.pingable(g.Host, addrPeer)
	for _, p := range []struct {
		from *lab.Host
		to   netip.Addr
	}{{g.Host, addrH}, {h.Host, addrG}, {h.Host, addrI}, {i.Host, addrH}} {
		w.unreachable(p.from, p.to)
	}

	// Forged sources, and last a good one.
	atStation, err := st.Capture(w.ctx, lab.GuestInterface)
	w.must(err)
	onWire, atPeer := w.cable("wlan0"), w.heardBy(peer)
	bridge := w.hardware("gway0")
	hostSelf := w.self()
	forged := []netip.Addr{netip.MustParseAddr("2001:db8:f::1"), netip.MustParseAddr("fd00::1"), hostA, netip.IPv6Unspecified(), netip.MustParseAddr("::1"), hostSelf}
	for _, src := range forged {
		for _, dst := range []netip.Addr{stA, lab.InternetIPv6, addrPeer} {
			w.must(g.Send(echoRequest(bridge, g.MAC, src, dst)))
		}
	}
	for _, dst := range []netip.Addr{stA, addrPeer} {
		w.must(g.Send(echoRequest(bridge, g.MAC, addrG, dst)))
	}
	marked := lab.IsICMPv6(lab.EchoRequest6)
	good := lab.SrcIn(netip.PrefixFrom(addrG, 128))
	for _, c := range []*lab.Capture{atStation, atPeer} {
		_, err = c.Wait(w.soon(), lab.All(lab.Incoming, marked, good))
		w.must(err)
		w.none(c, "with a forged source", lab.Incoming, marked, lab.Not(good))
	}
	w.none(onWire, "with a forged source, on the wire", lab.Outgoing, marked, lab.Not(good))
	w.must(waitSeen(w, h, prefixA))

	// Advertisements and redirects, as if from itself, and as if from the link's router.
	before := w.hostIPv6()
	rogue := netip.MustParsePrefix("2001:db8:bad::/64")
	body, err := lab.DefaultRA(rogue).Marshal()
	w.must(err)
	for _, from := range []netip.Addr{lab.LinkLocal(g.MAC), w.router("a"), hostSelf} {
		ra := lab.IPv6(from, lab.AllNodes, 58, 255, lab.ICMPv6(from, lab.AllNodes, lab.RouterAdvertisement, 0, body[4:]))
		redirect := lab.IPv6(from, hostSelf, 58, 255, lab.ICMPv6(from, hostSelf, lab.Redirect6, 0, append(make([]byte, 4), append(lab.LinkLocal(g.MAC).AsSlice(), lab.InternetIPv6.AsSlice()...)...)))
		for range 3 {
			w.must(g.Send(lab.Ethernet(lab.MulticastMAC(lab.AllNodes), g.MAC, lab.EtherIPv6, ra), lab.Ethernet(bridge, g.MAC, lab.EtherIPv6, redirect)))
		}
	}
	w.pingable(g.Host, addrPeer)
	w.must(waitSeen(w, peer, prefixA))
	if after := w.hostIPv6(); after != before {
		t.Errorf("the host's IPv6 was\n%s\nand is\n%s", before, after)
	}
	if route := w.run("ip", "-6", "route", "get", lab.InternetIPv6.String()); !strings.Contains(route, " dev wlan0 ") {
		t.Errorf("the host goes to the internet by %s", route)
	}
	w.none(onWire, "advertisements and redirects sent by the laptop", lab.Outgoing, lab.IsICMPv6(lab.RouterAdvertisement, lab.Redirect6))
	w.waitPrefixes(prefixA)
	w.noViolations("a")
}

// heardBy is a capture of what a guest sends and hears.
func (w *world) heardBy(g *lab.Guest) *lab.Capture {
	w.t.Helper()
	c, err := g.Capture(w.ctx, lab.GuestInterface)
	w.must(err)
	return c
}

// The laptop is nobody's router but its guests': not for a neighbour that takes it for the next hop. And what a guest sends from an
// address of the link that it left is refused, so that old sessions fail soon (RFC 7084 L-14).
func TestProxiedForNobodyElse(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: wifiAndDesk()})
	w.waitProperty(w.network, "IPv6State", "proxy")
	st, stB := w.station("b", "lan", prefixB, lab.MachineOptions{})
	g, watch, addrB := w.guest6("vm1", prefixB)
	w.known(addrB)
	_, err := st.Reach(w.soon(), lab.EchoIPv6)
	w.must(err)
	onA, onB := w.cable("wlan0"), w.cable("eth0")
	laptop, err := w.Laptop.WaitAddress(w.soon(), "eth0", linkLAN)
	w.must(err)
	far := netip.MustParseAddr("2001:db8:ffff::77")
	for _, dst := range []netip.Addr{lab.InternetIPv6, far} {
		_, err = st.Run(w.ctx, "ip", "-6", "route", "add", dst.String(), "via", laptop.String(), "dev", lab.GuestInterface)
		w.must(err)
	}
	w.cannotReach(st.Host, lab.EchoIPv6)
	w.unreachable(st.Host, far)
	for _, c := range []*lab.Capture{onA, onB} {
		w.none(c, "of a neighbour, routed by the laptop", lab.Outgoing, lab.SrcIn(netip.PrefixFrom(stB, 128)))
	}

	heard := w.heardBy(g)
	old, err := g.DialUDP(netip.AddrPortFrom(addrB, 0), lab.EchoIPv6)
	w.must(err)
	defer old.Close()
	w.must(w.Site("b").Unplug())
	_, _, err = watch.WaitAddress(w.soon(), prefixA)
	w.must(err)
	w.must(waitSeen(w, g, prefixA))
	refusal := func(f lab.Frame) bool {
		u, ok := f.Upper6()
		return ok && f.ICMPv6Type() == 1 && len(u.Data) > 1 && u.Data[1] == 5
	}
	w.eventually("the guest hears that its old address is wrong here", func() error {
		_, _ = old.Write([]byte("x")) // fails with what was heard of the one before
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		_, err := heard.Wait(ctx, lab.All(lab.Incoming, refusal))
		return err
	})
	w.none(onA, "from the address of the link that was left", lab.Outgoing, lab.SrcIn(netip.PrefixFrom(addrB, 128)), lab.Not(lab.IsNA), lab.Not(lab.IsNS))
	w.noViolations("a")
}
