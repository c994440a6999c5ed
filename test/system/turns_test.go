package system_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gangway/test/lab"
)

var (
	turnsSeed  = flag.Uint64("turns.seed", 0, "`seed` of the walk over sites; 0: the time")
	turnsSteps = flag.Int("turns.steps", 12, "`number` of steps of the walk over sites")
)

// everywhere are sites of all kinds, none plugged in but the access point, in the order in which they are preferred.
func everywhere() []lab.SiteOptions {
	site := func(name, uplink string, metric, n int) lab.SiteOptions {
		return lab.SiteOptions{Name: name, Uplink: uplink, Metric: metric, Unplugged: true, IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(20 + n), 0, 0}), 24),
			IPv6: netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::/64", n))}
	}
	bridge, single, desk, wifi, plain, phone := site("br", "eth1", 100, 1), site("one", "eth2", 150, 2), site("desk", "eth0", 200, 3), site("wifi", "wlan0", 300, 4),
		site("plain", "eth3", 400, 5), site("phone", "wwan0", 700, 6)
	bridge.Bridge, bridge.HeedCarrier = "br1", true
	for _, s := range []*lab.SiteOptions{&bridge, &desk, &wifi} {
		ra := lab.DefaultRA(s.IPv6)
		s.RA = &ra
	}
	managed := lab.ManagedRA(single.IPv6)
	single.RA, single.DHCPv6 = &managed, true
	wifi.WiFi, wifi.ReflectMulticast, wifi.Unplugged = true, true, false
	plain.IPv6 = netip.Prefix{}
	phone.WWAN = true
	return []lab.SiteOptions{bridge, single, desk, wifi, plain, phone}
}

// turns is what a walker over sites knows.
type turns struct {
	*world
	plugged map[string]bool
	guest   *lab.Guest
}

// where is the site that the laptop is to be at, nil for none.
func (w *turns) where() *lab.Site {
	for _, s := range w.Sites { // in order of preference
		if w.plugged[s.Name] {
			return s
		}
	}
	return nil
}

// ways tells how guests have IPv6 at each site.
var ways = map[string]string{"br": "bridge", "one": "nat66", "desk": "proxy", "wifi": "proxy", "plain": "link-local", "phone": "proxy", "": "link-local"}

// converges waits until the network's state is what the site's kind demands, and the guest's what the network says.
func (w *turns) converges() {
	w.t.Helper()
	name, site := "", w.where()
	if site != nil {
		name = site.Name
		w.waitUplink(w.network, site.Interface)
	}
	w.waitProperty(w.network, "IPv6State", ways[name])
	var prefixes []netip.Prefix
	w.eventually("the guest has what the network says", func() error {
		if state := w.get(w.network, "IPv6State"); state != ways[name] {
			return fmt.Errorf("IPv6State is %v at %q", state, name)
		}
		prefixes = prefixes[:0]
		for _, text := range w.get(w.network, "IPv6Prefixes").([]string) {
			p, err := netip.ParsePrefix(text)
			w.must(err)
			prefixes = append(prefixes, p)
		}
		// Of two sites in the same way, the one left may still be the network's until the other's routers are known.
		if way := ways[name]; (len(prefixes) > 0) != (way != "link-local") ||
			(way == "bridge" || way == "proxy") && !slices.Equal(prefixes, []netip.Prefix{site.Options.IPv6}) {
			return fmt.Errorf("its prefixes are %v at %q", prefixes, name)
		}
		state, err := w.guest.IPv6()
		w.must(err)
		for _, a := range state.Global() {
			inside := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a.Prefix.Addr()) })
			if a.Usable() != inside {
				return fmt.Errorf("%s is usable %v, and the prefixes are %v", a.Prefix, a.Usable(), prefixes)
			}
		}
		for _, p := range prefixes {
			if len(state.Usable(p)) == 0 {
				return fmt.Errorf("no address of %s is usable", p)
			}
		}
		if n := len(state.Routers()); (n == 1) != (len(prefixes) > 0) || n > 1 {
			return fmt.Errorf("default routers %v, and the prefixes are %v", state.Routers(), prefixes)
		}
		return nil
	})
	if len(prefixes) == 0 {
		w.cannotReach(w.guest.Host, lab.EchoIPv6)
	} else {
		w.seenBy(site, prefixes[0])
	}
	if site == nil {
		w.cannotReach(w.guest.Host, lab.EchoIPv4)
		return
	}
	w.reachesBy(w.guest.Host, site.Name)
}

// seenBy waits until the internet sees the guest by an address of its own in the prefix, or, where that is translated, the host's.
func (w *turns) seenBy(site *lab.Site, within netip.Prefix) {
	w.t.Helper()
	if uniqueLocal.Contains(within.Addr()) {
		within = site.Options.IPv6
	}
	w.eventually(fmt.Sprintf("%s is seen in %s", w.guest.Name, within), func() error {
		ctx, cancel := w.short()
		defer cancel()
		seen, err := w.guest.Reach(ctx, lab.EchoIPv6)
		if err == nil && !within.Contains(seen.Addr()) {
			err = fmt.Errorf("it is seen as %s", seen)
		}
		return err
	})
}

// turn plugs things in or out until the laptop is somewhere else.
func (w *turns) turn(random *rand.Rand) string {
	w.t.Helper()
	var what []string
	for was := w.where(); w.where() == was; {
		site := w.Sites[random.IntN(len(w.Sites))]
		act, verb := site.Plug, "plug in "
		if w.plugged[site.Name] {
			act, verb = site.Unplug, "unplug "
		}
		w.must(act())
		w.plugged[site.Name] = !w.plugged[site.Name]
		what = append(what, verb+site.Name)
	}
	return strings.Join(what, ", ")
}

// A walk over sites of all kinds. At each the guest's IPv6 comes to be what the network says, and that what the site allows.
func TestTurns(t *testing.T) {
	t.Parallel()
	seed := *turnsSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test ./test/system -run Turns -turns.seed %d -turns.steps %d", seed, *turnsSteps)
	random := rand.New(rand.NewPCG(seed, 0))
	w := &turns{world: start(t, lab.Options{Sites: everywhere()}), plugged: map[string]bool{"wifi": true}}
	w.call(w.network, "Network.Update", dict("nat66-fallback", true))
	w.guest = w.attached("vm1", w.network)
	w.lease(w.guest, netip.Prefix{})
	var wires []*lab.Capture
	for _, s := range w.Sites {
		wires = append(wires, w.cable(s.Uplink))
	}
	w.converges()
	for step := range *turnsSteps {
		begun := time.Now()
		what := w.turn(random)
		w.converges()
		t.Logf("%d: %s: after %v", step, what, time.Since(begun).Round(time.Millisecond))
		if t.Failed() {
			t.Fatalf("step %d", step)
		}
	}
	w.noViolations("wifi")
	var errs []error
	for i, c := range wires {
		w.none(c, "advertisements by "+w.Sites[i].Uplink, lab.Outgoing, lab.IsRA)
		w.none(c, "unique local sources by "+w.Sites[i].Uplink, lab.Outgoing, lab.SrcIn(uniqueLocal))
		errs = append(errs, c.Close())
	}
	w.must(errors.Join(errs...))
}
