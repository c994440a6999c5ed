package ndp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/vnet"
)

// retrans is the guest's Retrans Timer in milliseconds.
func retrans(t testing.TB, guest string) string {
	t.Helper()
	return sh(t, "ip netns exec %s cat /proc/sys/net/ipv6/neigh/eth0/retrans_time_ms", guest)
}

func TestGuestsGetAnAddressFromWhatWasHeard(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	l.radvd(ns, radvdA)
	l.advertised(up, known(routerA, macA, true, prefixA))
	guest, port := l.guest(guestMAC)
	beyond := l.watch(ns, "eth0")
	atGuest := l.watch(guest, "eth0")
	var never []*capture
	for _, where := range []string{l.inner, l.bridge} {
		never = append(never, l.watch("", where))
	}
	eventually(t, "the guest's carrier", func() bool {
		l.observe()
		link, _ := l.room.kernel.LinkByName(port)
		return link.Carrier
	})
	l.announce(up) // the guest's link leads nowhere: it has this from us alone
	eventually(t, "short timers", func() bool { return retrans(t, guest) == "100" })
	l.awaitAddress(guest, prefixA, routerA)
	eventually(t, "usual timers", func() bool { return retrans(t, guest) == "1000" })
	eventually(t, "a solicitation", func() bool { return beyond.count(ofType(message.TypeRouterSolicitation)) > 0 })

	eventually(t, "two advertisements", func() bool { return atGuest.count(ofType(message.TypeRouterAdvertisement)) == 2 })
	said := atGuest.all(ofType(message.TypeRouterAdvertisement))
	if gap := said[1].at.Sub(said[0].at); gap < restoring-100*time.Millisecond {
		t.Errorf("timers were restored after %v", gap)
	}
	for _, f := range said {
		ra, err := message.ParseRouterAdvertisement(f.Frame)
		if err != nil || f.From.String() != routerA || f.Source.String() != macA || ra.MTU() != 1400 || ra.RouterLifetime() == 0 {
			t.Errorf("%+v, %v", f, err)
		}
	}
	for _, c := range never {
		if n := c.count(ofType(message.TypeRouterAdvertisement)); n > 0 {
			t.Errorf("%d advertisements where none should be", n)
		}
	}
}

// The router's own timer is what is restored.
func TestARoutersOwnTimerIsRestored(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	l.observe()
	frame := parse(t, advertisement(routerA, macA, 1800, pio(prefixA, 3600))).Body()
	frame[14], frame[15] = 1200>>8, 1200&0xff
	mac, _ := message.ParseMAC(macA)
	l.send(ns, "eth0", message.AdvertisementFrame(netip.MustParseAddr(routerA), mac, message.AllNodes, message.Multicast(message.AllNodes), frame).Marshal())
	l.advertised(up, known(routerA, macA, true, prefixA))
	guest, _ := l.guest(guestMAC)
	eventually(t, "short timers", func() bool {
		l.observe()
		l.announce(up)
		return retrans(t, guest) == "100"
	})
	eventually(t, "the router's", func() bool { return retrans(t, guest) == "1200" })
}

// A router that guests were made to forget meanwhile isn't brought back for its timers' sake.
func TestAWithdrawnRouterIsNotBroughtBack(t *testing.T) {
	t.Parallel()
	l, up, guest, _, _ := onA(t)
	l.detach()
	c := l.watch(guest, "eth0")
	l.announce(up)
	l.withdraw(known(routerA, macA, true, prefixA))
	eventually(t, "the repetition after", func() bool { return c.count(final) >= 3 })
	if n := c.count(func(f captured) bool { return f.Type() == message.TypeRouterAdvertisement && !final(f) }); n != 1 {
		t.Errorf("%d announcements", n)
	}
	if l.via(guest, routerA) {
		t.Error("the router is back")
	}
}

func TestNothingHeardIsNothingAnnounced(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	guest, _ := l.guest(guestMAC)
	c, beyond := l.watch(guest, "eth0"), l.watch(ns, "eth0")
	l.observe()
	eventually(t, "the first solicitation", func() bool { return beyond.count(ofType(message.TypeRouterSolicitation)) == 1 })
	l.announce(up)
	eventually(t, "another at once", func() bool { return beyond.count(ofType(message.TypeRouterSolicitation)) == 2 })
	if gap := beyond.all(ofType(message.TypeRouterSolicitation)); gap[1].at.Sub(gap[0].at) > solicitPause-time.Second {
		t.Errorf("asked %v after the first time", gap[1].at.Sub(gap[0].at))
	}
	if n := c.count(ofType(message.TypeRouterAdvertisement)); n > 0 {
		t.Errorf("%d advertisements", n)
	}
	l.send(guest, "eth0", advertisement(routerB, macB, 0)) // a rogue's, so that the capture is seen to work
	eventually(t, "a frame", func() bool { return c.count(ofType(message.TypeRouterAdvertisement)) > 0 })
}

// Switches must learn where guests are now; neighbours know them by what they had.
func TestTheLinkIsToldWhereGuestsAre(t *testing.T) {
	t.Parallel()
	l, up, guest, _, ns := onA(t)
	sh(t, "ip -n %[1]s link set eth0 down; ip -n %[1]s link set eth0 up", guest) // it looks for duplicates, heard by now
	l.awaitAddress(guest, prefixA, routerA)
	sh(t, "ip -n %s addr add 2001:db8:a::77/64 dev eth0", guest)
	eventually(t, "what the guest has", func() bool {
		// It tells, with what it has of another link, too.
		l.send(guest, "eth0", message.UnsolicitedAdvertisement(netip.MustParseAddr("2001:db8:dead::1"), message.MAC{2, 0, 0, 0, 0, 1}).Marshal())
		l.room.mu.Lock()
		defer l.room.mu.Unlock()
		return len(l.room.networks[l.network].neighbours.list) == 4
	})
	c := l.watch(ns, "eth0")
	back := l.watch(guest, "eth0")
	fresh := func(f captured) bool {
		return f.Type() == message.TypeNeighborAdvertisement && f.Source.String() == guestMAC
	}
	l.announce(up)
	// Its link-local address, that of SLAAC, and the one that was added.
	eventually(t, "three advertisements", func() bool { return c.count(fresh) >= 3 })
	told := map[string]bool{}
	for _, f := range c.all(fresh) {
		a, err := message.ParseNeighborAdvertisement(f.Frame)
		if err != nil || !a.Override || a.Solicited || a.Router || a.LinkLayer.String() != guestMAC || a.From != a.Target {
			t.Errorf("%+v, %v", a, err)
			continue
		}
		told[a.Target.String()] = true
	}
	if len(told) != 3 || !told["2001:db8:a::77"] || told["2001:db8:dead::1"] || !told["fe80::ff:fe00:1"] {
		t.Errorf("told of %v", told)
	}
	if n := back.count(func(f captured) bool { return fresh(f) && !f.sent }); n > 0 {
		t.Errorf("the guest heard %d of its own", n)
	}
	// Who left isn't told of.
	sh(t, "ip link set p%s-2 nomaster", l.id)
	l.observe()
	l.room.mu.Lock()
	if n := len(l.room.networks[l.network].neighbours.list); n > 0 {
		t.Errorf("%d addresses without a guest", n)
	}
	l.room.mu.Unlock()
}

// From one link to another: what all of this is for.
func TestASwitch(t *testing.T) {
	t.Parallel()
	l, upA, guest, _, _ := onA(t)
	upB := l.uplink("b")
	nsB := l.routerOf(upB, routerB, macB)
	l.radvd(nsB, radvdB)
	l.advertised(upB, known(routerB, macB, true, prefixB))
	atB := l.watch(nsB, "eth0")
	atGuest := l.watch(guest, "eth0")

	l.detach()
	began := time.Now()
	l.withdraw(known(routerA, macA, true, prefixA))
	l.teach(upB)
	l.attach(upB)
	l.observe()
	l.announce(upB)
	l.awaitAddress(guest, prefixB, routerB)
	t.Logf("on B after %v", time.Since(began))
	eventually(t, "A to be left", func() bool { return !l.via(guest, routerA) && l.deprecated(guest, prefixA) })
	sh(t, "ip -n %s addr add 2001:db8:b::1/64 dev eth0 nodad", nsB)
	sh(t, "ip netns exec %s ping -6 -c 1 -W 20 2001:db8:b::1", guest)

	// And back within the two hours: A is taught again, B withdrawn.
	l.detach()
	l.withdraw(known(routerB, macB, true, prefixB))
	l.teach(upA)
	l.attach(upA)
	l.observe()
	l.announce(upA)
	l.awaitAddress(guest, prefixA, routerA)
	eventually(t, "B to be left", func() bool { return !l.via(guest, routerB) && l.deprecated(guest, prefixB) })
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{known(routerA, macA, true, prefixA)}, Retired: prefixes(prefixB)})
	eventually(t, "repetitions", func() bool {
		return atGuest.count(func(f captured) bool { return final(f) && f.From.String() == routerB }) >= 3
	})
	l.awaitAddress(guest, prefixA, routerA)
	leak := func(f captured) bool {
		return f.Type() == message.TypeRouterAdvertisement && strings.Contains(string(f.ICMP), "a.example")
	}
	if n := atB.count(leak); n > 0 {
		t.Errorf("%d advertisements of A on B", n)
	}
}

// The same link by another interface: the router was taught before, and is heard there from now on.
func TestATaughtRouterIsHeardWhereItIsAnnouncedFrom(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first, second := l.uplink("a"), l.uplink("b")
	ns, other := l.routerOf(first, routerA, macA), l.routerOf(second, "fe80::99", macB)
	l.observe()
	l.send(ns, "eth0", advertisement(routerA, macA, 1800, pio(prefixA, 3600)))
	l.advertised(first, known(routerA, macA, true, prefixA))
	l.teach(first)
	l.send(other, "eth0", advertisement(routerA, macA, 1800, pio(prefixA, 3600)))
	l.advertised(second, known(routerA, macA, true, prefixA))
	l.announce(second)
	if !strings.Contains(l.saved(), `"uplink":"`+second+`"`) {
		t.Errorf("on disk: %s", l.saved())
	}
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{known(routerA, macA, true, prefixA)}})
}
