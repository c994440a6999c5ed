package system_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// delegated is a prefix of two /64s that a router sends to the laptop.
var delegated = netip.MustParsePrefix("2001:db8:d0:10::/63")

// routedTo is a laptop on Wi-Fi and at the desk, whose router sends delegated to it.
func routedTo(t *testing.T) *world {
	t.Helper()
	w := start(t, lab.Options{Sites: wifiAndDesk()})
	w.must(w.Site("b").RoutePrefix(w.ctx, delegated, w.hostHas("eth0", prefixB)))
	return w
}

// echoing is a guest of the network with an echo server, and its address within the prefix.
func (w *world) echoing(name string, network godbus.ObjectPath, within netip.Prefix) (*lab.Guest, netip.AddrPort) {
	w.t.Helper()
	g := w.attached(name, network)
	addr, err := g.WaitIPv6(w.soon(), within)
	w.must(err)
	_, err = g.ServeEcho()
	w.must(err)
	return g, netip.AddrPortFrom(addr, lab.EchoPort)
}

// reachable waits until the internet reaches the guest by new connections.
func (w *world) reachable(guest netip.AddrPort) {
	w.t.Helper()
	_, err := w.Internet.Reach(w.soon(), guest)
	w.must(err)
}

// Guests with a /64 of their own, of a prefix that the settings name and the router sends to the laptop.
func TestRoutedIPv6(t *testing.T) {
	t.Parallel()
	w := routedTo(t)
	wire := w.cable("eth0")
	one := w.create("one", dict("ipv6-method", "routed", "ipv6-prefix", delegated.String(), "inbound", "allow", "uplink", "eth0"))
	oneHas := w.own64(one, "routed")
	two := w.create("two", dict("ipv6-method", "routed", "ipv6-prefix", delegated.String()))
	twoHas := w.own64(two, "routed")
	if oneHas.Overlaps(twoHas) || !delegated.Contains(oneHas.Addr()) || !delegated.Contains(twoHas.Addr()) {
		t.Errorf("of %s two networks have %s and %s", delegated, oneHas, twoHas)
	}
	w.waitProperty(two, "IPv6Reason", fmt.Sprintf("guests have %s, routed by eth0", twoHas))
	three := w.create("three", dict("ipv6-method", "routed", "ipv6-prefix", delegated.String()))
	w.waitProperty(three, "IPv6State", "link-local")
	w.waitProperty(three, "IPv6Reason", fmt.Sprintf("the prefix %s is used up: each network needs a /64 of its own", delegated))

	g, open := w.echoing("vm1", one, oneHas)
	h, closed := w.echoing("vm2", two, twoHas)
	for guest, addr := range map[*lab.Guest]netip.AddrPort{g: open, h: closed} {
		w.seenAs(guest, lab.EchoIPv6, addr.Addr())
		w.pingable(w.Internet.Host, addr.Addr()) // RFC 4890 4.3.1
	}
	w.reachable(open)
	w.cannotReach(w.Internet.Host, closed)
	w.cannotReach(g.Host, closed) // of another network, which the prefix has in common with it
	w.call(two, "Network.Update", dict("inbound", "allow"))
	w.reachable(closed)
	w.call(two, "Network.Update", dict("inbound", "deny"))
	w.cannotReach(w.Internet.Host, closed)

	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		w.kill(sig)
		w.must(w.Daemon().Activate(w.soon()))
		for network, was := range map[godbus.ObjectPath]netip.Prefix{one: oneHas, two: twoHas} {
			if now := w.own64(network, "routed"); now != was {
				t.Errorf("%s has %s after %v, had %s", network, now, sig, was)
			}
		}
		w.reachable(open)
		w.waitProperty(three, "IPv6State", "link-local")
	}
	w.none(wire, "solicitations for guests' addresses", lab.Outgoing, lab.IsNS, func(f lab.Frame) bool {
		n, ok := f.Neighbor()
		return ok && delegated.Contains(n.Target)
	})

	// Who made room for another; and a prefix that is a single /64.
	w.call(two, "Network.Delete")
	if now := w.own64(three, "routed"); now != twoHas {
		t.Errorf("the third network has %s, want %s, which is free", now, twoHas)
	}
	w.call(three, "Network.Delete")
	four := w.create("four", dict("ipv6-method", "routed", "ipv6-prefix", twoHas.String(), "inbound", "allow"))
	if now := w.own64(four, "routed"); now != twoHas {
		t.Errorf("a network with the prefix %s has %s", twoHas, now)
	}
	_, fourth := w.echoing("vm4", four, twoHas)
	w.reachable(fourth)

	// A network that is pinned to the uplink has no way without it; another keeps its prefix and goes where the laptop goes.
	watch, err := g.WatchIPv6(w.ctx)
	w.must(err)
	w.t.Cleanup(func() { watch.Close() })
	gone := time.Now()
	w.must(w.Site("b").Unplug())
	w.waitProperty(one, "IPv6State", "link-local")
	_, err = watch.WaitNoRouter(w.soon(), netip.Addr{})
	w.must(err)
	_, err = watch.WaitNoAddress(w.soon(), oneHas)
	w.must(err)
	w.waitProperty(four, "IPv6Reason", fmt.Sprintf("guests have %s, routed by wlan0", twoHas))
	w.eventually("the default network is on Wi-Fi", func() error {
		if p := w.get(w.network, "IPv6Prefixes").([]string); len(p) != 1 || p[0] != prefixA.String() {
			return fmt.Errorf("its prefixes are %v", p)
		}
		return nil
	})
	w.must(w.Site("b").Plug())
	if now := w.own64(one, "routed"); now != oneHas {
		t.Errorf("back at the desk the network has %s, had %s", now, oneHas)
	}
	_, _, err = watch.WaitAddress(w.soon(), oneHas)
	w.must(err)
	w.reachable(open)
	t.Logf("unplugged and plugged in again within %v", time.Since(gone))
}

// What a prefix has been routed to the laptop for and isn't there doesn't go back to the router (RFC 7084 4.3 WPD-5).
func TestNoLoopOfDelegated(t *testing.T) {
	t.Parallel()
	w := routedTo(t)
	n := w.create("one", dict("ipv6-method", "routed", "ipv6-prefix", delegated.String(), "inbound", "allow"))
	has := w.own64(n, "routed")
	g, guest := w.echoing("vm1", n, has)
	w.must(waitSeen(w, g, has))
	wire := w.cable("eth0")
	for _, absent := range []netip.Addr{has.Addr().Next().Next(), otherHalf(delegated, has).Addr().Next()} {
		conn, err := w.Internet.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(absent, 9))
		w.must(err)
		_, err = conn.Write([]byte("anybody there?"))
		w.must(err)
		w.must(conn.Close())
		_, err = wire.Wait(w.soon(), lab.All(lab.Incoming, lab.DstIn(netip.PrefixFrom(absent, 128))))
		w.must(err)
		w.reachable(guest)
	}
	// Of guests' own link the laptop says so.
	_, err := wire.Wait(w.soon(), lab.All(lab.Outgoing, lab.IsICMPv6(1)))
	w.must(err)
	w.none(wire, "sent back to where it came from", lab.Outgoing, lab.DstIn(delegated))
}

// otherHalf is the /64 of a prefix of two that the one isn't.
func otherHalf(whole, one netip.Prefix) netip.Prefix {
	p := netip.PrefixFrom(whole.Addr(), 64)
	if p != one {
		return p
	}
	a := whole.Addr().As16()
	a[7]++
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}
