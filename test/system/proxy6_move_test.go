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

// waitPrefixes waits until the network's guests have addresses of exactly these.
func (w *world) waitPrefixes(prefixes ...netip.Prefix) {
	w.t.Helper()
	var texts []string
	for _, p := range prefixes {
		texts = append(texts, p.String())
	}
	w.waitProperty(w.network, "IPv6Prefixes", texts)
}

// desk is a plain Ethernet alone.
func desk() []lab.SiteOptions { return wifiAndDesk()[1:] }

// The same link by another interface, as a dock on the LAN of the Wi-Fi: nothing is withdrawn, sessions survive, and neighbours learn
// where guests are.
func TestProxiedSameLinkByAnotherInterface(t *testing.T) {
	t.Parallel()
	sites := desk()
	sites[0].More = []lab.UplinkOptions{{Name: "wlan0", Metric: 300}}
	w := start(t, lab.Options{Sites: sites})
	w.waitActivated("wlan0")
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, addr := w.guest6("vm1", prefixB)
	w.known(addr)
	st, stB := w.station("b", "lan", prefixB, lab.MachineOptions{})
	w.eventually("the routers of wlan0 are known", func() error {
		if n := len(w.get(uplinkPath("wlan0"), "Routers").([]string)); n != 1 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	flow, err := g.ProbeFlow(w.ctx, st.Echo(stB), lab.ProbeOptions{Interval: 10 * time.Millisecond})
	w.must(err)
	inward, err := st.ProbePing(w.ctx, addr, lab.ProbeOptions{Interval: 10 * time.Millisecond})
	w.must(err)
	internet, err := g.ProbeFlow(w.ctx, lab.EchoIPv6, lab.ProbeOptions{Interval: 10 * time.Millisecond})
	w.must(err)
	begun := time.Now()
	for _, move := range []struct {
		do  func() error
		to  string
		mac string
	}{
		{w.Cable("eth0").Unplug, "wlan0", w.Cable("wlan0").MAC.String()},
		{w.Cable("eth0").Plug, "eth0", w.Cable("eth0").MAC.String()},
	} {
		for _, p := range []*lab.Probe{flow, inward, internet} {
			_, err = p.WaitSuccess(w.soon(), time.Now())
			w.must(err)
		}
		w.must(move.do())
		w.waitUplink(w.network, move.to)
		w.eventually("the neighbour knows that the guest moved to "+move.to, func() error {
			state, err := st.IPv6()
			if mac := state.Neighbors[addr]; err == nil && mac.String() != move.mac {
				err = fmt.Errorf("to it the guest is at %s, not %s", mac, move.mac)
			}
			return err
		})
	}
	for _, p := range []*lab.Probe{flow, inward, internet} {
		_, err = p.WaitSuccess(w.soon(), time.Now())
		w.must(err)
	}
	session, toGuest, outward := flow.Finish(), inward.Finish(), internet.Finish()
	t.Logf("the session on the LAN: %s; from the LAN to the guest: %s; the one with the internet: %s", session, toGuest, outward)
	for _, r := range []lab.Result{session, toGuest} {
		if lan, far := r.Blackout(begun), outward.Blackout(begun); lan > far+3*time.Second {
			t.Errorf("neighbours on the link were out of reach for %v, the internet for %v", lan, far)
		}
	}
	if at, was := watch.First(begun, func(s lab.IPv6State) bool {
		return !s.HasRouter(w.self()) || !slices.Contains(s.Usable(prefixB), addr)
	}); was {
		t.Errorf("the guest's address or router was withdrawn %v after the first move", at.Sub(begun))
	}
}

// A router that begins to advertise another prefix and says nothing of the old one (RFC 9096), and one that says that it is none any
// more, and is again.
func TestProxiedRouterChangesItsMind(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: desk()})
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, addr := w.guest6("vm1", prefixB)
	self := w.self()
	ra := lab.DefaultRA(prefixB)
	ra.RouterLifetime = 0
	w.must(w.Site("b").SetRA(w.ctx, ra))
	_, err := watch.WaitNoRouter(w.soon(), self)
	w.must(err)
	w.waitProperty(w.network, "IPv6State", "proxy") // its prefix is still the link's
	if state := watch.History()[len(watch.History())-1]; !slices.Contains(state.Usable(prefixB), addr) {
		t.Error("the guest lost its address with the default route")
	}
	w.must(w.Site("b").SetRA(w.ctx, lab.DefaultRA(prefixB)))
	_, err = watch.WaitRouter(w.soon(), self)
	w.must(err)
	w.must(waitSeen(w, g, prefixB))

	changed := time.Now()
	next := netip.MustParsePrefix("2001:db8:bb::/64")
	ra = lab.DefaultRA(next)
	ra.MinInterval, ra.MaxInterval = 3*time.Second, 4*time.Second
	w.must(w.Site("b").SetRA(w.ctx, ra))
	nextAddr, _, err := watch.WaitAddress(w.soon(), next)
	w.must(err)
	_, err = watch.WaitNoAddress(w.soon(), prefixB)
	w.must(err)
	w.waitPrefixes(next)
	w.must(waitSeen(w, g, next))
	w.known(nextAddr)
	w.eventually("the old address is nobody's", func() error {
		if left := w.run("sh", "-c", fmt.Sprintf("ip -6 neigh show proxy %s; ip -6 route show %s", addr, addr)); left != "" {
			return fmt.Errorf("left is %s", left)
		}
		return nil
	})
	if at, was := watch.First(changed, func(s lab.IPv6State) bool { return !s.HasRouter(self) }); was {
		t.Errorf("the guest was without its router at %v, which is the same", at)
	}
}

// Two routers on a link, and a unique local prefix beside the global one: a guest has an address of each, and one router. Then the next link.
func TestProxiedSeveralPrefixes(t *testing.T) {
	t.Parallel()
	sites := wifiAndDesk()
	local, more := netip.MustParsePrefix("fd00:b::/64"), netip.MustParsePrefix("2001:db8:b2::/64")
	ra := lab.DefaultRA(prefixB, local)
	sites[1].RA = &ra
	w := start(t, lab.Options{Sites: sites})
	second := lab.DefaultRA(more)
	_, err := w.Site("b").AddRouter(w.ctx, "two", lab.RouterOptions{RA: &second})
	w.must(err)
	w.waitPrefixes(prefixB, more, local)
	_, watch, _ := w.guest6("vm1", prefixB)
	self := w.self()
	st, _ := w.station("b", "lan", prefixB, lab.MachineOptions{})
	for _, p := range []netip.Prefix{prefixB, more, local} {
		addr, _, err := watch.WaitAddress(w.soon(), p)
		w.must(err)
		w.pingable(st.Host, addr)
	}
	if state := watch.History()[len(watch.History())-1]; len(state.Routers()) != 1 || !state.HasRouter(self) {
		t.Errorf("the guest's routers are %v, want %s alone", state.Routers(), self)
	}
	w.must(w.Site("b").Unplug())
	_, _, err = watch.WaitAddress(w.soon(), prefixA)
	w.must(err)
	for _, p := range []netip.Prefix{prefixB, more, local} {
		_, err := watch.WaitNoAddress(w.soon(), p) // none that is preferred
		w.must(err)
	}
	w.waitPrefixes(prefixA)
	w.noViolations("a")
}

// Back to a link within two hours: the guest's address there is preferred again without its asking for it, and it is reached there at
// once, though the link's router doesn't ask where it is, and the daemon may be one that wasn't there the first time.
func TestProxiedBackWithinTwoHours(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: wifiAndDesk()})
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, addrB := w.guest6("vm1", prefixB)
	w.known(addrB)
	var addrA netip.Addr
	for i, there := range []struct {
		do     func() error
		within netip.Prefix
	}{{w.Site("b").Unplug, prefixA}, {w.Site("b").Plug, prefixB}, {w.Site("b").Unplug, prefixA}} {
		if i == 2 {
			w.kill(unix.SIGKILL)
			w.must(w.Daemon().Activate(w.soon()))
		}
		w.must(there.do())
		addr, _, err := watch.WaitAddress(w.soon(), there.within)
		w.must(err)
		usable := time.Now()
		w.must(waitSeen(w, g, there.within))
		took := time.Since(usable)
		t.Logf("move %d: seen %v after its address was usable", i+1, took)
		if took > 10*time.Second {
			t.Errorf("move %d: the guest had a usable address and was out of reach for %v", i+1, took)
		}
		if there.within == prefixA && addrA.IsValid() && addr != addrA {
			t.Errorf("the guest was %s and is %s", addrA, addr)
		}
		if there.within == prefixA {
			addrA = addr
		}
	}
	// What was withdrawn and is back isn't withdrawn again by a repetition, or for a newcomer.
	_, newcomer, _ := w.guest6("vm2", prefixA)
	settled := time.Now()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	_, _ = newcomer.WaitNoAddress(ctx, prefixA)
	for name, guest := range map[string]*lab.Watch{"vm1": watch, "vm2": newcomer} {
		if at, was := guest.First(settled, func(s lab.IPv6State) bool { return len(s.Usable(prefixA)) == 0 || !s.HasRouter(w.self()) }); was {
			t.Errorf("%s lost its address or router %v after it was back", name, at.Sub(settled))
		}
	}
	w.noViolations("a")
}
