package ndp

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/service/ndp/message"
	"gangway/service/plan"
	"gangway/service/vnet"
)

// teach has the room note all routers of the uplink.
func (l *lab) teach(uplink string) {
	l.Helper()
	l.apply(plan.Teach{Network: l.network, Uplink: uplink, Routers: l.observe().Advertised[uplink].Routers})
}

func (l *lab) withdraw(routers ...vnet.Router) {
	l.Helper()
	l.apply(plan.Withdraw{Network: l.network, Bridge: l.bridge, Routers: routers, Why: "test"})
}

func (l *lab) announce(uplink string) {
	l.Helper()
	l.apply(plan.Announce{Network: l.network, Bridge: l.bridge, Uplink: uplink, Inner: l.inner})
}

// saved is the memory on disk and when it was written.
func (l *lab) saved() string {
	l.Helper()
	file := filepath.Join(l.options.StateDir, fileName)
	data, err := os.ReadFile(file)
	must(l, err)
	info, err := os.Stat(file)
	must(l, err)
	return info.ModTime().String() + string(data)
}

// wantTaught compares what is shown of the network.
func (l *lab) wantTaught(want vnet.Taught) {
	l.Helper()
	want.Network = l.network
	if diff := cmp.Diff(want, l.observe().Taught[l.network], compare...); diff != "" {
		l.Error(diff)
	}
}

func prefixes(list ...string) []netip.Prefix {
	var parsed []netip.Prefix
	for _, p := range list {
		parsed = append(parsed, netip.MustParsePrefix(p))
	}
	return parsed
}

// flags returns those of each of the guest's addresses of the prefix.
func (l *lab) flags(guest, prefix string) []string {
	l.Helper()
	of := netip.MustParsePrefix(prefix)
	var list []string
	for line := range strings.Lines(sh(l, "ip -n %s -6 -o addr show dev eth0 scope global", guest)) {
		f := strings.Fields(line)
		if len(f) > 4 && of.Contains(netip.MustParsePrefix(f[3]).Addr()) {
			list = append(list, strings.Join(f[4:], " "))
		}
	}
	return list
}

// awaitAddress waits until the guest can use an address of the prefix, and a default route.
func (l *lab) awaitAddress(guest, prefix, via string) {
	l.Helper()
	eventually(l, guest+"'s address of "+prefix, func() bool {
		return slices.ContainsFunc(l.flags(guest, prefix), func(f string) bool {
			return !strings.Contains(f, "tentative") && !strings.Contains(f, "deprecated")
		}) && l.via(guest, via)
	})
}

// via tells whether the guest has a default route by the router.
func (l *lab) via(guest, router string) bool {
	l.Helper()
	return strings.Contains(sh(l, "ip -n %s -6 route show default", guest)+"\n", "via "+router+" ")
}

// deprecated tells whether the guest has given up its addresses of the prefix.
func (l *lab) deprecated(guest, prefix string) bool {
	l.Helper()
	flags := l.flags(guest, prefix)
	return len(flags) > 0 && !slices.ContainsFunc(flags, func(f string) bool { return !strings.Contains(f, "deprecated") })
}

// onA puts a guest onto a link with the router A, as a network is that follows its uplink.
func onA(t *testing.T, edit ...func(*Options)) (l *lab, up, guest, port, router string) {
	t.Helper()
	l = newLab(t, edit...)
	up = l.uplink("a")
	router = l.routerOf(up, routerA, macA)
	l.radvd(router, radvdA)
	l.advertised(up, known(routerA, macA, true, prefixA))
	l.teach(up)
	l.attach(up)
	guest, port = l.guest(guestMAC)
	l.awaitAddress(guest, prefixA, routerA)
	l.observe()
	return l, up, guest, port, router
}

func TestGuestsForgetALinkThatTheyAreNoLongerOn(t *testing.T) {
	t.Parallel()
	l, up, guest, port, ns := onA(t)
	other, otherPort := l.guest("02:00:00:00:00:02")
	l.awaitAddress(other, prefixA, routerA)
	l.observe()
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{known(routerA, macA, true, prefixA)}})
	atGuest := l.watch(guest, "eth0")
	var never []*capture // where nothing of it may ever pass
	for _, where := range []string{l.inner, l.outer, l.bridge, up} {
		never = append(never, l.watch("", where))
	}
	never = append(never, l.watch(ns, "eth0"))

	l.detach()
	began := time.Now()
	l.withdraw(known(routerA, macA, true, prefixA))
	eventually(t, "no default route", func() bool { return !l.via(guest, routerA) && !l.via(other, routerA) })
	t.Logf("the default route was gone after %v", time.Since(began))
	eventually(t, "the addresses to be given up", func() bool { return l.deprecated(guest, prefixA) && l.deprecated(other, prefixA) })
	l.wantTaught(vnet.Taught{Retired: prefixes(prefixA)})

	// Told again, four times.
	eventually(t, "five finals", func() bool { return atGuest.count(final) >= 5 })
	told := atGuest.all(final)
	want := []time.Duration{0, 250 * time.Millisecond, 3 * time.Second, 6 * time.Second, 9 * time.Second}
	for i, f := range told {
		if late := f.at.Sub(told[0].at) - want[min(i, 4)]; late < -50*time.Millisecond || late > 2*time.Second {
			t.Errorf("%d. final is %v late", i, late)
		}
	}

	// Whoever asks is told, he alone.
	beside := l.watch("", otherPort)
	sh(t, "ip -n %[1]s link set eth0 down; ip -n %[1]s link set eth0 up", guest) // the kernel asks, then
	eventually(t, "an answer", func() bool {
		return atGuest.count(func(f captured) bool { return final(f) && f.Destination.String() == guestMAC }) > 0
	})
	if n := beside.count(final); n > 0 {
		t.Errorf("%d answers to another guest", n)
	}
	sh(t, "ip link set %s up", port)

	for i, c := range never {
		if n := c.count(final); n > 0 {
			t.Errorf("%d finals at place %d", n, i)
		}
	}
}

// The test above bites: without withdrawal, the guest stays where it was.
func TestWithoutWithdrawalGuestsStay(t *testing.T) {
	t.Parallel()
	l, _, guest, _, _ := onA(t, func(o *Options) { o.Mute = true })
	c := l.watch(guest, "eth0")
	l.detach()
	l.withdraw(known(routerA, macA, true, prefixA))
	l.wantTaught(vnet.Taught{Retired: prefixes(prefixA)})
	l.send(guest, "eth0", message.RouterSolicitation(netip.MustParseAddr("fe80::99"), message.MAC{2, 0, 0, 0, 0, 1}).Marshal())
	late, port := l.guest("02:00:00:00:00:02")
	atLate := l.watch(late, "eth0")
	eventually(t, "the new port's carrier", func() bool {
		l.observe()
		link, _ := l.room.kernel.LinkByName(port)
		return link.Carrier
	})
	eventually(t, "what would have been sent", func() bool {
		l.room.mu.Lock()
		defer l.room.mu.Unlock()
		n := l.room.networks[l.network]
		again := 0
		for _, p := range n.ports {
			if !p.again.IsZero() {
				again++
			}
		}
		return len(n.repeats) < len(repetitions) && again == 0
	})
	if !l.via(guest, routerA) || l.deprecated(guest, prefixA) || c.count(final) > 0 || atLate.count(final) > 0 {
		t.Error("the guest was told")
	}
}

// Finals say what the router said, but for what they are about.
func TestFinalsAreTheRoutersOwnWords(t *testing.T) {
	t.Parallel()
	l, up, guest, _, _ := onA(t)
	heard := l.watch("", up)
	sh(t, "ip -n %[1]s link set eth0 down; ip -n %[1]s link set eth0 up", guest) // it asks, A answers
	eventually(t, "an advertisement", func() bool { return heard.count(ofType(message.TypeRouterAdvertisement)) > 0 })
	was := heard.all(ofType(message.TypeRouterAdvertisement))[0]
	c := l.watch(guest, "eth0")
	l.withdraw(known(routerA, macA, true, prefixA))
	eventually(t, "a final", func() bool { return c.count(final) > 0 })
	is := c.all(final)[0]
	if is.From != was.From || is.Source != was.Source || is.To != message.AllNodes || is.Destination != message.Multicast(message.AllNodes) || is.HopLimit != 255 {
		t.Errorf("sent as %+v", is.Frame)
	}
	// All lifetimes are 0, and so is the checksum for this; what else radvd says stays.
	want := bytes.Clone(was.ICMP)
	clear(want[2:4])
	clear(want[6:8])
	want[5] &^= 0x18
	for o := want[16:]; len(o) > 0; o = o[8*int(o[1]):] {
		switch o[0] {
		case optionPrefix:
			clear(o[4:12])
		case optionRoute, optionRDNSS, optionDNSSL:
			clear(o[4:8])
		}
	}
	clear(is.ICMP[2:4])
	if diff := cmp.Diff(want, is.ICMP); diff != "" {
		t.Error(diff)
	}
	for _, kind := range []byte{optionPrefix, optionRoute, optionRDNSS, optionDNSSL, 1, 5} {
		found := false
		for o := want[16:]; len(o) > 0; o = o[8*int(o[1]):] {
			found = found || o[0] == kind
		}
		if !found {
			t.Errorf("radvd didn't send option %d, which this is to be tried with", kind)
		}
	}
}

func TestANewPortIsTold(t *testing.T) {
	t.Parallel()
	l, _, _, _, _ := onA(t)
	l.detach()
	l.withdraw(known(routerA, macA, true, prefixA))
	l.room.mu.Lock()
	l.room.networks[l.network].repeats = nil // which would be told to the new one, too
	l.room.mu.Unlock()
	ns, _ := l.namespace(l.bridge, "02:00:00:00:00:02")
	l.observe() // it has no carrier yet: nobody would hear it
	sh(t, "ip -n %s link set eth0 up", ns)
	c := l.watch(ns, "eth0")
	unasked := func(f captured) bool { return final(f) && f.Destination == message.Multicast(message.AllNodes) }
	eventually(t, "the carrier", func() bool { l.observe(); return c.count(unasked) > 0 })
	eventually(t, "told again", func() bool { return c.count(unasked) > 1 })
	told := c.all(unasked)
	if gap := told[1].at.Sub(told[0].at); gap > portPause+time.Second {
		t.Errorf("told again after %v", gap)
	}
}

// Those on the uplink's side of the IPv6-only link ask for routers, too.
func TestOthersOnTheLinkGetNoAnswer(t *testing.T) {
	t.Parallel()
	l, up, guest, _, ns := onA(t)
	c := l.watch(ns, "eth0")
	atBridge := l.watch("", l.bridge)
	atGuest := l.watch(guest, "eth0")
	l.withdraw(known(routerA, macA, true, prefixA)) // still attached
	ask := message.RouterSolicitation(netip.MustParseAddr("fe80::99"), message.MAC{2, 0, 0, 0, 0, 0x99})
	l.send(ns, "eth0", ask.Marshal())
	eventually(t, "the question", func() bool { return atBridge.count(ofType(message.TypeRouterSolicitation)) > 0 })
	// A guest's is answered; by then, so would be the other.
	l.send(guest, "eth0", message.RouterSolicitation(netip.MustParseAddr("fe80::1"), message.MAC{2, 0, 0, 0, 0, 1}).Marshal())
	eventually(t, "an answer", func() bool {
		return atGuest.count(func(f captured) bool { return final(f) && f.To == netip.MustParseAddr("fe80::1") }) > 0
	})
	if n := c.count(final) + l.watch("", up).count(final); n > 0 {
		t.Errorf("%d finals on the uplink", n)
	}
}

func TestARouterThatIsTaughtAgainIsNotWithdrawnAgain(t *testing.T) {
	t.Parallel()
	l, up, guest, _, _ := onA(t)
	c := l.watch(guest, "eth0")
	l.withdraw(known(routerA, macA, true, prefixA))
	eventually(t, "two finals", func() bool { return c.count(final) == 2 })
	l.teach(up)
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{known(routerA, macA, true, prefixA)}})
	l.announce(up)
	l.awaitAddress(guest, prefixA, routerA)
	l.send(guest, "eth0", message.RouterSolicitation(netip.MustParseAddr("fe80::1"), message.MAC{2, 0, 0, 0, 0, 1}).Marshal())
	eventually(t, "the time of the next repetition", func() bool {
		l.room.mu.Lock()
		defer l.room.mu.Unlock()
		return len(l.room.networks[l.network].repeats) < 3
	})
	if n := c.count(final); n != 2 {
		t.Errorf("%d finals, want 2", n)
	}
	l.awaitAddress(guest, prefixA, routerA)
}

func TestAnotherProcessGoesOnWithdrawing(t *testing.T) {
	t.Parallel()
	l, _, guest, _, _ := onA(t, func(o *Options) { o.Mute = true }) // as if killed before anything was sent
	l.detach()
	l.withdraw(known(routerA, macA, true, prefixA))
	l.room.Close()
	l.options.Mute = false
	c := l.watch(guest, "eth0")
	l.uplinks = nil
	l.room = l.newRoom()
	l.wantTaught(vnet.Taught{Retired: prefixes(prefixA)})
	eventually(t, "no default route", func() bool { return !l.via(guest, routerA) && l.deprecated(guest, prefixA) })
	eventually(t, "repetitions", func() bool { return c.count(final) >= 5 })
	for _, f := range c.all(final) { // by the words on disk
		if !bytes.Contains(f.ICMP, []byte("example")) {
			t.Errorf("not what the router said: %x", f.ICMP)
		}
	}
	l.apply(plan.Forget{Network: l.network})
	if have := l.observe().Taught; len(have) > 0 {
		t.Errorf("not forgotten: %v", have)
	}
	l.room.Close()
	l.room = l.newRoom()
	if have := l.observe().Taught; len(have) > 0 {
		t.Errorf("not forgotten on disk: %v", have)
	}
}

// A router that changes its prefix stays, and what it says besides.
func TestARouterChangesItsPrefix(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	change, _ := l.radvd(ns, radvdA)
	l.advertised(up, known(routerA, macA, true, prefixA))
	l.teach(up)
	l.attach(up)
	guest, _ := l.guest(guestMAC)
	l.awaitAddress(guest, prefixA, routerA)
	began := time.Now()
	change(radvdA2)
	l.advertised(up, known(routerA, macA, true, prefixA2))
	t.Logf("the old prefix was known to be gone after %v", time.Since(began))
	l.teach(up)
	l.withdraw(known(routerA, macA, false, prefixA))
	eventually(t, "the old address to go", func() bool { return l.deprecated(guest, prefixA) })
	l.awaitAddress(guest, prefixA2, routerA)
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{known(routerA, macA, true, prefixA2)}, Retired: prefixes(prefixA)})
}

func TestOperationsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	bad := []vnet.Router{{Address: netip.MustParseAddr(routerA), MAC: "x"}}
	global := []vnet.Router{{Address: netip.MustParseAddr("2001:db8::1"), MAC: macA}}
	for _, op := range []plan.Op{
		plan.SetLinkUp{Name: "x"}, plan.Teach{Network: "../x"}, plan.Teach{Network: l.network, Routers: bad},
		plan.Withdraw{Network: l.network, Routers: global}, plan.Announce{Network: l.network, Uplink: "absent"},
	} {
		if err := l.room.Apply(context.Background(), []plan.Op{op})[0].Err; err == nil {
			t.Errorf("%s: succeeded", op)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.room.Apply(ctx, []plan.Op{plan.Forget{Network: l.network}})[0].Err; err == nil {
		t.Error("succeeded without time")
	}
	l.apply(plan.Forget{Network: l.network})
}
