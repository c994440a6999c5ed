package system_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// Without withdrawals a guest stays on the link that it left: so the tests that see it leave can fail.
func TestWithoutWithdrawals(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{GangwaydEnv: []string{"GANGWAY_TEST_MUTE_WITHDRAWALS=1"}})
	_, watch, _ := w.guest6("vm1", prefixB)
	routerA, routerB := w.router("a"), w.router("b")
	w.must(w.Site("b").Unplug())
	_, err := watch.WaitRouter(w.soon(), routerA)
	w.must(err)
	w.waitProperty(w.network, "IPv6Prefixes", []string{prefixA.String()})
	// Longer than the last repetition of a withdrawal.
	ctx, cancel := context.WithTimeout(w.ctx, 12*time.Second)
	defer cancel()
	if _, err := watch.WaitNoRouter(ctx, routerB); err == nil {
		t.Error("the guest left the old router, and nobody told it to")
	}
	state := watch.History()[len(watch.History())-1]
	if len(state.Usable(prefixB)) == 0 {
		t.Error("the guest's old address is not preferred any more, and nobody told it so")
	}
}

// The next uplink has no IPv6: guests fall back to IPv4 at once. The one after it can't be bridged to.
func TestUplinkWithoutIPv6(t *testing.T) {
	t.Parallel()
	sites := twoBridges()
	sites[0].IPv6, sites[0].RA = netip.Prefix{}, nil
	w := bridged(t, lab.Options{Sites: append(sites, lab.SiteOptions{Name: "c", Uplink: "eth2", Metric: 150, Unplugged: true,
		IPv4: netip.MustParsePrefix("172.20.0.0/24"), IPv6: netip.MustParsePrefix("2001:db8:c::/64")})})
	g, watch, _ := w.guest6("vm1", prefixB)
	w.lease(g, netip.Prefix{})
	other, _, _ := w.guest6("vm2", prefixB)
	routerB := w.router("b")
	w.must(w.Site("b").Unplug())
	_, err := watch.WaitNoRouter(w.soon(), routerB)
	w.must(err)
	w.waitProperty(w.network, "IPv6State", "link-local")
	w.waitReason("no router advertises IPv6 on br1")
	w.reachesBy(g.Host, "a")
	// Nothing to go by: IPv6 fails at once, so that a dual-stack program doesn't wait.
	if state, err := g.IPv6(); err != nil || len(state.Routers()) > 0 {
		t.Errorf("the guest has default routers %v, %v", state.Routers(), err)
	}
	peer, err := other.WaitIPv6(w.soon(), linkLAN)
	w.must(err)
	peer, err = g.Scoped(peer, lab.GuestInterface)
	w.must(err)
	w.must(g.Ping(w.soon(), peer))

	w.must(w.Site("c").Plug()) // plain Ethernet
	w.waitUplink(w.network, "eth2")
	w.waitProperty(w.network, "IPv6State", "proxy")
	w.must(waitSeen(w, g, netip.MustParsePrefix("2001:db8:c::/64")))
	w.reachesBy(g.Host, "c")
	w.must(w.Site("b").Plug())
	_, _, err = watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	w.waitProperty(w.network, "IPv6State", "bridge")
	w.must(waitSeen(w, g, prefixB))
}

func (w *world) waitReason(want string) {
	w.t.Helper()
	w.waitProperty(w.network, "IPv6Reason", want)
}

// Two routers on a link are two default routers of a guest, and both go.
func TestTwoRoutersOnALink(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{})
	more := netip.MustParsePrefix("2001:db8:b2::/64")
	ra := lab.DefaultRA(more)
	second, err := w.Site("b").AddRouter(w.ctx, "two", lab.RouterOptions{RA: &ra})
	w.must(err)
	_, watch, _ := w.guest6("vm1", prefixB)
	_, _, err = watch.WaitAddress(w.soon(), more)
	w.must(err)
	w.waitProperty(w.network, "IPv6Prefixes", []string{prefixB.String(), more.String()})
	if got := w.get(uplinkPath("br0"), "Routers").([]string); len(got) != 2 {
		t.Errorf("Routers of br0 is %v", got)
	}
	w.must(w.Site("b").Unplug())
	_, _, err = watch.WaitAddress(w.soon(), prefixA)
	w.must(err)
	secondLL, err := second.WaitAddress(w.soon(), second.Interface, linkLAN)
	w.must(err)
	for _, router := range []netip.Addr{w.router("b"), secondLL} {
		_, err := watch.WaitNoRouter(w.soon(), router)
		w.must(err)
	}
	for _, p := range []netip.Prefix{prefixB, more} {
		_, err := watch.WaitNoAddress(w.soon(), p) // none that is preferred
		w.must(err)
	}
}

// A router that begins to advertise another prefix and says nothing of the old one (RFC 9096).
func TestPrefixChange(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{})
	g, watch, _ := w.guest6("vm1", prefixB)
	router := w.router("b")
	next := netip.MustParsePrefix("2001:db8:bb::/64")
	changed := time.Now()
	ra := lab.DefaultRA(next)
	ra.MinInterval, ra.MaxInterval = 3*time.Second, 4*time.Second
	w.must(w.Site("b").SetRA(w.ctx, ra))
	_, _, err := watch.WaitAddress(w.soon(), next)
	w.must(err)
	_, err = watch.WaitNoAddress(w.soon(), prefixB)
	w.must(err)
	w.waitProperty(w.network, "IPv6Prefixes", []string{next.String()})
	w.must(waitSeen(w, g, next))
	if at, was := watch.First(changed, func(s lab.IPv6State) bool { return !s.HasRouter(router) }); was {
		t.Errorf("the guest was without its router at %v, which is the same", at)
	}
}

// A router that says that it is none any more.
func TestRouterLifetimeZero(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{})
	_, watch, _ := w.guest6("vm1", prefixB)
	ra := lab.DefaultRA(prefixB)
	ra.RouterLifetime = 0
	w.must(w.Site("b").SetRA(w.ctx, ra))
	_, err := watch.WaitNoRouter(w.soon(), w.router("b"))
	w.must(err)
	w.waitProperty(uplinkPath("br0"), "Routers", []string{})
	w.waitProperty(w.network, "IPv6State", "bridge") // its prefix is still the link's
	if state := watch.History()[len(watch.History())-1]; len(state.Usable(prefixB)) == 0 {
		t.Error("the guest lost its address with the default route")
	}
	w.must(w.Site("b").SetRA(w.ctx, lab.DefaultRA(prefixB)))
	_, err = watch.WaitRouter(w.soon(), w.router("b"))
	w.must(err)
}

// The same link by another interface: nothing is withdrawn, and sessions survive.
func TestSameLinkByAnotherInterface(t *testing.T) {
	t.Parallel()
	sites := twoBridges()[1:]
	sites[0].More = []lab.UplinkOptions{{Name: "eth2", Bridge: "br2", HeedCarrier: true, Metric: 300}}
	w := bridged(t, lab.Options{Sites: sites})
	w.waitActivated("br2")
	g, watch, addr := w.guest6("vm1", prefixB)
	st, err := w.Site("b").AddStation(w.ctx, "lan", lab.StationOptions{})
	w.must(err)
	stAddr, err := st.WaitIPv6(w.soon(), prefixB)
	w.must(err)
	w.eventually("the routers of br2 are known", func() error {
		if n := len(w.get(uplinkPath("br2"), "Routers").([]string)); n != 1 {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
	flow, err := g.ProbeFlow(w.ctx, st.Echo(stAddr), lab.ProbeOptions{Interval: 10 * time.Millisecond})
	w.must(err)
	_, err = flow.WaitSuccess(w.soon(), time.Now())
	w.must(err)
	inward, err := st.ProbePing(w.ctx, addr, lab.ProbeOptions{Interval: 10 * time.Millisecond})
	w.must(err)
	moved := time.Now()
	w.must(w.Cable("eth0").Unplug())
	w.waitUplink(w.network, "br2")
	for _, p := range []*lab.Probe{flow, inward} {
		_, err = p.WaitSuccess(w.soon(), time.Now())
		w.must(err)
	}
	result := flow.Finish()
	t.Logf("the session was without answers for %v; from the LAN to the guest: %v", result.Blackout(moved), inward.Finish().Blackout(moved))
	if at, was := watch.First(moved, func(s lab.IPv6State) bool {
		return !s.HasRouter(w.router("b")) || !slices.Contains(s.Usable(prefixB), addr)
	}); was {
		t.Errorf("the guest's address or router was withdrawn %v after the move", at.Sub(moved))
	}
	w.must(w.Cable("eth0").Plug())
	w.waitUplink(w.network, "br0")
	w.must(g.Ping(w.soon(), stAddr))
	if at, was := watch.First(moved, func(s lab.IPv6State) bool { return !slices.Contains(s.Usable(prefixB), addr) }); was {
		t.Errorf("the guest's address was withdrawn %v after the move", at.Sub(moved))
	}
}

// Back to a link within two hours: the same address is preferred again.
func TestBackWithinTwoHours(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{})
	g, watch, addrB := w.guest6("vm1", prefixB)
	for _, there := range []struct {
		do     func() error
		within netip.Prefix
	}{{w.Site("b").Unplug, prefixA}, {w.Site("b").Plug, prefixB}, {w.Site("b").Unplug, prefixA}, {w.Site("b").Plug, prefixB}} {
		w.must(there.do())
		_, _, err := watch.WaitAddress(w.soon(), there.within)
		w.must(err)
		w.must(waitSeen(w, g, there.within))
	}
	// What was withdrawn and is back isn't withdrawn again by a repetition, or for a newcomer.
	_, newcomer, _ := w.guest6("vm2", prefixB)
	settled := time.Now()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	_, _ = newcomer.WaitNoAddress(ctx, prefixB)
	for name, guest := range map[string]*lab.Watch{"vm1": watch, "vm2": newcomer} {
		if at, was := guest.First(settled, func(s lab.IPv6State) bool { return len(s.Usable(prefixB)) == 0 || !s.HasRouter(w.router("b")) }); was {
			t.Errorf("%s lost its address or router %v after it was back", name, at.Sub(settled))
		}
	}
	if state := watch.History()[len(watch.History())-1]; !slices.Contains(state.Usable(prefixB), addrB) {
		t.Errorf("the guest has %v, and not its first address %s", state.Usable(prefixB), addrB)
	}
}

// A daemon that is killed at whatever moment of a switch is followed by one that finishes it.
func TestKilledWhileMoving(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{})
	g, watch, _ := w.guest6("vm1", prefixB)
	routers := map[string]netip.Addr{"a": w.router("a"), "b": w.router("b")}
	for i, delay := range []time.Duration{300, 305, 310, 320, 340} {
		from, to, within := "b", "a", prefixA
		act := w.Site("b").Unplug
		if i%2 == 1 {
			from, to, within, act = "a", "b", prefixB, w.Site("b").Plug
			delay = time.Duration(i) * 2
		}
		w.must(act())
		select {
		case <-time.After(delay * time.Millisecond): // somewhere in the middle: which moment doesn't matter
		case <-w.ctx.Done():
		}
		w.must(w.Daemon().Kill(w.soon(), unix.SIGKILL))
		w.must(w.Daemon().Activate(w.soon()))
		_, _, err := watch.WaitAddress(w.soon(), within)
		w.must(err)
		_, err = watch.WaitNoRouter(w.soon(), routers[from])
		w.must(err)
		_, err = watch.WaitRouter(w.soon(), routers[to])
		w.must(err)
		w.must(waitSeen(w, g, within))
	}
}
