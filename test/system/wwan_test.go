package system_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gangway/test/lab"
)

var prefixW = netip.MustParsePrefix("2001:db8:e::/64")

// onThePhone are wifiAndDesk and a modem, which is preferred last.
func onThePhone() []lab.SiteOptions {
	return append(wifiAndDesk(), lab.SiteOptions{Name: "w", Uplink: "wwan0", Metric: 700, WWAN: true, IPv4: netip.MustParsePrefix("10.64.7.0/30"), IPv6: prefixW})
}

// The /64 of a modem's connection is extended to guests (RFC 7278), who reach the internet and are reached with their own
// addresses; what isn't there doesn't go to and fro between carrier and laptop.
func TestWWANIPv6(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: onThePhone()[2:]})
	w.waitProperty(w.network, "IPv6State", "proxy")
	w.waitReason("guests share the prefix of wwan0")
	w.call(w.network, "Network.Update", dict("inbound", "allow"))
	g, guest := w.echoing("vm1", w.network, prefixW)
	_, other := w.echoing("vm2", w.network, prefixW)
	air := w.cable("wwan0")
	host := w.hostHas("wwan0", prefixW)
	w.seenAs(g, lab.EchoIPv6, guest.Addr())
	w.reachesBy(w.attachedLease(g), "w")
	w.reachable(guest)
	w.pingable(w.Laptop, guest.Addr())
	w.pingable(g.Host, host)
	w.pingable(g.Host, other.Addr())
	if seen, err := w.Laptop.Reach(w.soon(), lab.EchoIPv6); err != nil || seen.Addr() != host {
		t.Errorf("the laptop is seen as %s, %v, want %s", seen, err, host)
	}

	// Addresses of the prefix that nobody has, as a scan finds them.
	absent := netip.MustParsePrefix("2001:db8:e:0:dead::/80")
	const packets = 200
	conn, err := w.Internet.ListenUDP(netip.AddrPortFrom(lab.InternetIPv6, 0))
	w.must(err)
	defer conn.Close()
	a := absent.Addr()
	for range packets {
		a = a.Next()
		_, err := conn.WriteToUDPAddrPort([]byte("anybody there?"), netip.AddrPortFrom(a, 9))
		w.must(err)
	}
	w.eventually("all that were sent came in", func() error {
		if n := air.Count(lab.Incoming, lab.DstIn(absent)); n < packets {
			return fmt.Errorf("%d did", n)
		}
		return nil
	})
	w.reachable(guest)
	if n := air.Count(lab.Incoming, lab.DstIn(absent)); n != packets {
		t.Errorf("%d packets for addresses that nobody has became %d", packets, n)
	}
	w.none(air, "sent back to the carrier", lab.Outgoing, lab.DstIn(prefixW))
	w.none(air, "neighbour discovery where there are no neighbours", lab.Outgoing, lab.IsICMPv6(lab.NeighborSolicitation, lab.NeighborAdvert))

	w.call(w.network, "Network.Update", dict("inbound", "deny"))
	w.cannotReach(w.Internet.Host, guest)
	w.pingable(w.Internet.Host, guest.Addr())
	w.must(waitSeen(w, g, prefixW))
	w.none(air, "advertisements", lab.Outgoing, lab.IsRA)
	w.noSpoofed()
}

// attachedLease has an attached guest's DHCP client ask, and waits for the answer.
func (w *world) attachedLease(g *lab.Guest) *lab.Host {
	w.t.Helper()
	w.lease(g, netip.Prefix{})
	return g.Host
}

// From Wi-Fi to the phone, to the desk and back: at each place guests have addresses of its prefix alone, and one router all the way.
func TestWWANSwitch(t *testing.T) {
	t.Parallel()
	sites := onThePhone()
	sites[1].Unplugged = true
	w := onWiFi(t, lab.Options{Sites: sites})
	g, watch, _ := w.guest6("vm1", prefixA)
	self := w.self()
	w.must(waitSeen(w, g, prefixA))
	begun := time.Now()
	prefixes := map[string]netip.Prefix{"a": prefixA, "b": prefixB, "w": prefixW}
	at := "a"
	for _, move := range []struct {
		what, to string
		do       func() error
	}{
		{"Wi-Fi is lost", "w", w.Site("a").Unplug},
		{"docked in", "b", w.Site("b").Plug},
		{"pulled", "w", w.Site("b").Unplug},
		{"Wi-Fi is back", "a", w.Site("a").Plug},
	} {
		moved := time.Now()
		w.must(move.do())
		_, usable, err := watch.WaitAddress(w.soon(), prefixes[move.to])
		w.must(err)
		_, err = watch.WaitNoAddress(w.soon(), prefixes[at])
		w.must(err)
		w.must(waitSeen(w, g, prefixes[move.to]))
		w.waitProperty(w.network, "IPv6State", "proxy")
		w.waitProperty(w.network, "IPv6Prefixes", []string{prefixes[move.to].String()})
		t.Logf("%s: the new address is usable after %v", move.what, usable.Sub(moved))
		at = move.to
	}
	if when, was := watch.First(begun, func(s lab.IPv6State) bool { return !s.HasRouter(self) }); was {
		t.Errorf("the guest was without its router at %v, which is the same everywhere", when)
	}
	w.noViolations("a")
	w.noSpoofed()
}

// A modem that has lost its service for less than the hold-down: guests keep what they have; for longer, and they have nothing.
func TestWWANHoldDown(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: onThePhone()[2:]})
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, addr := w.guest6("vm1", prefixW)
	w.must(waitSeen(w, g, prefixW))
	short := time.Now()
	w.must(w.Site("w").Unplug())
	w.linger(time.Second)
	w.must(w.Site("w").Plug())
	w.must(waitSeen(w, g, prefixW))
	if _, was := watch.First(short, func(s lab.IPv6State) bool { return !slices.Contains(s.Usable(prefixW), addr) }); was {
		t.Error("a second without signal has cost the guest its address")
	}
	w.must(w.Site("w").Unplug())
	w.waitProperty(w.network, "IPv6State", "link-local")
	_, err := watch.WaitNoAddress(w.soon(), prefixW)
	w.must(err)
	_, err = watch.WaitNoRouter(w.soon(), netip.Addr{})
	w.must(err)
	w.must(w.Site("w").Plug())
	_, _, err = watch.WaitAddress(w.soon(), prefixW)
	w.must(err)
	w.must(waitSeen(w, g, prefixW))
	w.must(w.Site("w").Hangup(w.soon()))
	w.waitProperty(w.network, "IPv6State", "link-local")
	_, err = watch.WaitNoAddress(w.soon(), prefixW)
	w.must(err)
	w.must(w.Site("w").Dial(w.soon()))
	_, _, err = watch.WaitAddress(w.soon(), prefixW)
	w.must(err)
	w.must(waitSeen(w, g, prefixW))
}
