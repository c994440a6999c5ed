package ndp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/plan"
	"gangway/service/vnet"
)

func TestGuestsAreServedByTheirBridge(t *testing.T) {
	t.Parallel()
	s, up := onProxy(t)
	s.radvd(s.router, s.radvdA())
	s.advertised(up, known(routerA, macA, true, s.prefix))
	guest, port := s.guest(guestMAC)
	s.forwards(port)
	atGuest := s.watch(guest, "eth0")
	var never []*capture
	for _, where := range []string{up, s.bridge, s.inner} {
		never = append(never, s.watch("", where))
	}
	s.begin(s.spec, s.prefix)
	if got := s.observe().Serving[s.network]; got != (vnet.Served{Digest: s.spec.Digest(), Uplink: up}) {
		t.Errorf("serving %+v", got)
	}
	// Nothing unasked. Who asks is answered, he alone.
	sh(t, "ip -n %s link set eth0 addrgenmode eui64", guest)
	self := netip.MustParseAddr("fe80::ff:fe00:1")
	asked := atGuest.count(ofType(message.TypeRouterAdvertisement))
	s.send(guest, "eth0", message.RouterSolicitation(self, message.MAC{2, 0, 0, 0, 0, 1}).Marshal())
	eventually(t, "an answer", func() bool { return atGuest.count(ofType(message.TypeRouterAdvertisement)) > asked })
	for _, f := range atGuest.all(ofType(message.TypeRouterAdvertisement)) {
		if f.Destination.String() != guestMAC {
			t.Errorf("unasked, to %s", f.Destination)
		}
	}
	early, earlyPort := s.guest("02:00:00:00:00:03")
	atEarly := s.watch(early, "eth0")
	s.forwards(earlyPort)
	s.observe()
	announced := time.Now()
	s.announceIt(s.spec)
	eventually(t, "short timers", func() bool { return retrans(t, guest) == "100" })
	s.awaitAddress(guest, s.prefix, bridgeLLA)
	eventually(t, "usual timers", func() bool { return retrans(t, guest) == "1000" })
	if s.via(guest, routerA) {
		t.Error("the uplink's own router is a guest's")
	}
	if routes := sh(t, "ip -n %s -6 route show %s", guest, s.prefix); routes != "" {
		t.Errorf("the prefix is on link: %s", routes)
	}
	toAll := func(f captured) bool {
		return f.Type() == message.TypeRouterAdvertisement && f.Destination == message.Multicast(message.AllNodes)
	}
	eventually(t, "an announcement", func() bool { return atEarly.count(toAll) > 0 })
	if first := atEarly.all(toAll)[0]; first.at.Before(announced) {
		t.Errorf("told unasked %v before", announced.Sub(first.at))
	}
	f := atGuest.all(toAll)[0]
	ra, err := message.ParseRouterAdvertisement(f.Frame)
	must(t, err)
	if lla, _ := ra.SourceLinkLayer(); lla.String() != s.spec.MAC || f.Source.String() != s.spec.MAC || f.From.String() != bridgeLLA || ra.MTU() != 1400 ||
		ra.RouterLifetime() == 0 || !strings.Contains(string(f.ICMP), "\x01a\x07example") {
		t.Errorf("%+v", f)
	}
	// A new port.
	other, otherPort := s.guest("02:00:00:00:00:02")
	atOther := s.watch(other, "eth0")
	s.forwards(otherPort)
	s.observe()
	eventually(t, "it to be told twice", func() bool { return atOther.count(toAll) == 2 })
	s.awaitAddress(other, s.prefix, bridgeLLA)
	for i, c := range never {
		if n := c.count(func(f captured) bool {
			return f.Type() == message.TypeRouterAdvertisement && f.From.String() == bridgeLLA
		}); n > 0 {
			t.Errorf("%d advertisements at %d, where none should be", n, i)
		}
	}
	// Both ways, through the kernel.
	lan := s.station(up, lanMAC, s.lan)
	eventually(t, "the guest to be known", func() bool { return strings.Contains(s.knows(s.network), s.guestOn+"="+guestMAC) })
	for _, way := range [][2]string{{guest, s.lan}, {lan, s.guestOn}, {guest, s.host}, {s.router, s.guestOn}} {
		if !s.ping(way[0], way[1]) {
			t.Errorf("no way from %s to %s", way[0], way[1])
		}
	}
}

// From uplink to uplink: one advertisement of the same router has what is new and what is over.
func TestASwitchOfAServedNetwork(t *testing.T) {
	t.Parallel()
	s, up := onProxy(t)
	s.radvd(s.router, s.radvdA())
	s.advertised(up, known(routerA, macA, true, s.prefix))
	upB := s.uplink("b")
	nsB := s.routerOf(upB, routerB, macB)
	s.radvd(nsB, radvdB)
	s.advertised(upB, known(routerB, macB, true, prefixB))
	guest, port := s.guest(guestMAC)
	s.forwards(port)
	s.begin(s.spec, s.prefix)
	s.announceIt(s.spec)
	s.awaitAddress(guest, s.prefix, bridgeLLA)
	atGuest, atB := s.watch(guest, "eth0"), s.watch(nsB, "eth0")

	b := s.spec
	b.Uplink, b.Host = upB, nil
	s.begin(b, prefixB)
	began := time.Now()
	s.apply(plan.Withdraw{Network: s.network, Bridge: s.bridge, Routers: []vnet.Router{self(b, false, s.prefix)}, Why: "test"})
	s.announceIt(b)
	s.awaitAddress(guest, prefixB, bridgeLLA)
	t.Logf("on B after %v", time.Since(began))
	if !s.deprecated(guest, s.prefix) {
		t.Error("A is still in use")
	}
	s.wantTaught(vnet.Taught{Routers: []vnet.Router{self(b, true, prefixB)}, Retired: prefixes(s.prefix)})
	eventually(t, "repetitions", func() bool { return atGuest.count(ofType(message.TypeRouterAdvertisement)) >= 5 })
	for _, f := range atGuest.all(ofType(message.TypeRouterAdvertisement)) {
		ra, err := message.ParseRouterAdvertisement(f.Frame)
		must(t, err)
		gone, _, names := ended(ra)
		if ra.RouterLifetime() == 0 || !slices.Equal(gone, prefixes(s.prefix)) || !names || len(ra.Prefixes()) != 2 {
			t.Errorf("says %v, of which %v is over, names %v, router %v", ra.Prefixes(), gone, names, ra.RouterLifetime())
		}
	}
	if n := atB.count(func(f captured) bool {
		return strings.Contains(string(f.ICMP), "a.example") || f.From.String() == bridgeLLA
	}); n > 0 {
		t.Errorf("%d frames of A on B", n)
	}

	// Nothing but the disk: another process has it all end, in the bridge's name.
	s.apply(plan.StopServing{Network: s.network})
	s.room.Close()
	s.room = s.newRoom()
	s.observe()
	s.withdraw(self(b, true, prefixB))
	eventually(t, "no default route", func() bool { return !s.via(guest, bridgeLLA) && s.deprecated(guest, prefixB) })
}

func TestTheDiskComesBeforeGuests(t *testing.T) {
	t.Parallel()
	s, up := onProxy(t)
	const later = "2001:db8:f:a00::/64"
	s.observe()
	s.send(s.router, "eth0", advertisement(routerA, macA, 1800, pio(s.prefix, 3600), pio(later, 3600), rdnss("2001:db8:a::53")))
	s.advertised(up, known(routerA, macA, true, s.prefix, later))
	guest, port := s.guest(guestMAC)
	s.forwards(port)
	s.begin(s.spec, s.prefix)
	s.announceIt(s.spec)
	s.awaitAddress(guest, s.prefix, bridgeLLA)
	if flags := s.flags(guest, later); len(flags) > 0 {
		t.Errorf("the guest has what isn't on record: %v", flags)
	}
	eventually(t, "usual timers", func() bool { return retrans(t, guest) == "1000" })
	// What comes later is told as soon as it is on record.
	s.apply(plan.Teach{Network: s.network, Uplink: up, Routers: []vnet.Router{self(s.spec, true, s.prefix, later)}})
	s.awaitAddress(guest, later, bridgeLLA)
	// A crash: the next process answers before it has heard anybody.
	s.room.Close()
	s.send(s.router, "eth0", advertisement(routerA, macA, 0)) // nobody hears that
	s.room = s.newRoom()
	s.uplinks = nil
	s.begin(s.spec, s.prefix, later)
	c := s.watch(guest, "eth0")
	s.send(guest, "eth0", message.RouterSolicitation(netip.MustParseAddr("fe80::ff:fe00:1"), message.MAC{2, 0, 0, 0, 0, 1}).Marshal())
	eventually(t, "an answer", func() bool { return c.count(ofType(message.TypeRouterAdvertisement)) > 0 })
	if ra, err := message.ParseRouterAdvertisement(c.all(ofType(message.TypeRouterAdvertisement))[0].Frame); err != nil || ra.RouterLifetime() < 1700*time.Second || len(ra.Prefixes()) != 2 {
		t.Errorf("%+v, %v", ra, err)
	}
}

// Nothing is known yet: the uplink is asked, and the guest has his answer as soon as there is one.
func TestAnAnswerThatHasToWait(t *testing.T) {
	t.Parallel()
	s, _ := onProxy(t)
	guest, port := s.guest(guestMAC)
	s.forwards(port)
	s.begin(s.spec, s.prefix)
	sh(t, "echo 0 | ip netns exec %s tee /proc/sys/net/ipv6/conf/eth0/router_solicitations", guest)
	beyond, c := s.watch(s.router, "eth0"), s.watch(guest, "eth0")
	ask := message.RouterSolicitation(netip.MustParseAddr("fe80::ff:fe00:1"), message.MAC{2, 0, 0, 0, 0, 1}).Marshal()
	eventually(t, "three solicitations", func() bool {
		s.send(guest, "eth0", ask)
		return beyond.count(ofType(message.TypeRouterSolicitation)) >= 3
	})
	if n := c.count(ofType(message.TypeRouterAdvertisement)); n > 0 {
		t.Errorf("%d answers of nothing", n)
	}
	s.send(s.router, "eth0", advertisement(routerA, macA, 1800, pio(s.prefix, 3600)))
	eventually(t, "an answer", func() bool { return c.count(ofType(message.TypeRouterAdvertisement)) > 0 })
	if f := c.all(ofType(message.TypeRouterAdvertisement))[0]; f.Destination.String() != guestMAC {
		t.Errorf("to %s", f.Destination)
	}
	asked := beyond.all(ofType(message.TypeRouterSolicitation))
	for i := 1; i < len(asked); i++ {
		if gap := asked[i].at.Sub(asked[i-1].at); gap < hastenedPause-200*time.Millisecond {
			t.Errorf("asked again after %v", gap)
		}
	}
}

// Prefixes and routers are told of at once, all else not more often than each three seconds.
func TestNews(t *testing.T) {
	t.Parallel()
	s, up := onProxy(t)
	s.observe()
	say := func(lifetime uint16, options ...[]byte) {
		s.send(s.router, "eth0", advertisement(routerA, macA, lifetime, options...))
	}
	say(1800, pio(s.prefix, 3600))
	s.advertised(up, known(routerA, macA, true, s.prefix))
	guest, port := s.guest(guestMAC)
	s.forwards(port)
	s.begin(s.spec, s.prefix)
	s.announceIt(s.spec)
	c := s.watch(guest, "eth0")
	eventually(t, "usual timers", func() bool { return retrans(t, guest) == "1000" })
	began := c.count(ofType(message.TypeRouterAdvertisement))
	said := func(server string) func(captured) bool {
		a := netip.MustParseAddr(server).As16()
		return func(f captured) bool {
			return f.Type() == message.TypeRouterAdvertisement && strings.Contains(string(f.ICMP), string(a[:]))
		}
	}
	for i := range 3 {
		server := fmt.Sprintf("2001:db8:a::%x", 0x53+i)
		say(1800, pio(s.prefix, 3600), rdnss(server))
		eventually(t, server, func() bool { return c.count(said(server)) > 0 })
	}
	list := c.all(ofType(message.TypeRouterAdvertisement))
	for i := max(1, began); i < len(list); i++ {
		if gap := list[i].at.Sub(list[i-1].at); gap < hushed-time.Second {
			t.Errorf("told again after %v", gap)
		}
	}
	last := list[len(list)-1].at
	say(0, pio(s.prefix, 3600), rdnss("2001:db8:a::55"))
	eventually(t, "the router's end", func() bool { return !s.via(guest, bridgeLLA) })
	list = c.all(ofType(message.TypeRouterAdvertisement))
	t.Logf("told of the router's end %v after the last", list[len(list)-1].at.Sub(last))
	say(1800, pio(s.prefix, 3600), rdnss("2001:db8:a::55"))
	eventually(t, "the router's return", func() bool { return s.via(guest, bridgeLLA) })
}

// The room doesn't fail for what isn't there.
func TestServingWithoutAnUplink(t *testing.T) {
	t.Parallel()
	s, up := onProxy(t)
	s.uplinks = nil
	spec := s.spec
	spec.Uplink, spec.Proxy, spec.Prefixes, spec.Host = "absent0", false, prefixes(s.prefix), nil
	guest, port := s.guest(guestMAC)
	s.forwards(port)
	s.begin(spec, s.prefix)
	s.announceIt(spec)
	s.awaitAddress(guest, s.prefix, bridgeLLA)
	eventually(t, "the guest to be known", func() bool {
		list := s.observe().Neighbours[s.network]
		return len(list) == 1 && list[0] == vnet.Neighbour{Address: netip.MustParseAddr(s.guestOn), MAC: guestMAC}
	})
	for _, op := range []plan.Op{
		plan.Announce{Network: s.network, Bridge: s.bridge, Uplink: up},
		plan.Announce{Network: "nobody", Bridge: s.bridge, Uplink: up},
		plan.Serve{Spec: plan.ServeSpec{Network: s.network, Address: netip.MustParseAddr("2001:db8::1"), MAC: selfMAC}},
		plan.Serve{Spec: plan.ServeSpec{Network: s.network, Address: netip.MustParseAddr("fe80::1"), MAC: "?"}},
		plan.Serve{Spec: plan.ServeSpec{Network: "../x", Address: netip.MustParseAddr("fe80::1"), MAC: selfMAC}},
	} {
		if o := s.room.Apply(context.Background(), []plan.Op{op})[0]; o.Err == nil || !strings.HasPrefix(o.Err.Error(), "cannot ") {
			t.Errorf("%s: %v", op, o.Err)
		}
	}
	s.apply(plan.StopServing{Network: "nobody"}, plan.StopServing{Network: s.network}, plan.StopServing{Network: s.network})
	if have := s.observe(); len(have.Serving) > 0 {
		t.Errorf("serving %v", have.Serving)
	}
}
