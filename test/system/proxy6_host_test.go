package system_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// unmanaged is wifiAndDesk for a host without NetworkManager, whose kernel goes by advertisements: that of the desk is preferred.
func unmanaged() lab.Options {
	sites := wifiAndDesk()
	sites[1].RA.Preference = 1
	return lab.Options{Sites: sites, NoNetworkManager: true}
}

// byHand gives a host without NetworkManager IPv4, and waits for the IPv6 that its kernel gets by itself.
func (w *world) byHand() {
	w.t.Helper()
	w.run("sh", "-c", "ip addr add 192.168.10.77/24 dev wlan0; ip route add default via 192.168.10.1 dev wlan0 metric 700; "+
		"ip addr add 10.20.0.77/24 dev eth0; ip route add default via 10.20.0.1 dev eth0 metric 100")
	w.waitIPv6()
}

// The host's own IPv6, where its kernel goes by advertisements: addresses and default routes stay when the daemon starts, switches and stops.
func TestProxiedHostKeepsIPv6(t *testing.T) {
	t.Parallel()
	w := setUp(t, unmanaged())
	w.byHand()
	w.atRest()
	before := w.hostIPv6()
	onA, err := w.Laptop.WatchIPv6(w.ctx, "wlan0")
	w.must(err)
	defer onA.Close()
	onB, err := w.Laptop.WatchIPv6(w.ctx, "eth0")
	w.must(err)
	defer onB.Close()
	routerA, routerB := w.router("a"), w.router("b")
	same := func(when string) {
		t.Helper()
		w.eventually("the host's IPv6 is as it was, "+when, func() error {
			if now := w.hostIPv6(); now != before {
				return fmt.Errorf("it was\n%s\nand is\n%s", before, now)
			}
			return nil
		})
	}
	begun := time.Now()
	w.must(w.Daemon().Activate(w.soon()))
	w.waitUplink(w.network, "eth0")
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, addr := w.guest6("vm1", prefixB)
	w.must(waitSeen(w, g, prefixB))
	w.known(addr)
	same("with the daemon")
	if at, was := onB.First(begun, func(s lab.IPv6State) bool { return !s.HasRouter(routerB) || len(s.Usable(prefixB)) == 0 }); was {
		t.Errorf("the host lost an address or router of eth0 %v after the daemon's start", at.Sub(begun))
	}
	w.must(w.Site("b").Unplug())
	_, _, err = watch.WaitAddress(w.soon(), prefixA)
	w.must(err)
	w.must(waitSeen(w, g, prefixA))
	w.must(w.Site("b").Plug())
	_, _, err = watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	w.must(waitSeen(w, g, prefixB))
	_, err = w.Laptop.WaitAddress(w.soon(), "eth0", prefixB)
	w.must(err)
	same("after switches")
	stopped := time.Now()
	w.kill(unix.SIGTERM)
	w.must(g.Remove(w.soon()))
	same("after the daemon's stop")
	if at, was := onA.First(begun, func(s lab.IPv6State) bool { return !s.HasRouter(routerA) || len(s.Usable(prefixA)) == 0 }); was {
		t.Errorf("the host lost an address or router of wlan0 %v after the daemon's start", at.Sub(begun))
	}
	if at, was := onB.First(stopped, func(s lab.IPv6State) bool { return !s.HasRouter(routerB) || len(s.Usable(prefixB)) == 0 }); was {
		t.Errorf("the host lost an address or router of eth0 %v after the daemon's stop", at.Sub(stopped))
	}
	w.noViolations("a")
}

// A cable that is pulled costs the host's own IPv6 no more with guests than without the daemon, whoever goes by advertisements.
func TestProxiedHostFailsOver(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]lab.Options{"NetworkManager": {Sites: wifiAndDesk()}, "kernel": unmanaged()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			took := map[bool]time.Duration{}
			for _, with := range []bool{false, true} {
				took[with] = hostFailsOver(t, o, with)
			}
			t.Logf("the host's IPv6 was off for %v without the daemon, for %v with", took[false], took[true])
			if took[true] > took[false]+5*time.Second/2 {
				t.Errorf("the daemon costs the host %v when a cable is pulled", took[true]-took[false])
			}
		})
	}
}

// hostFailsOver measures for how long the host's own IPv6 is off when it loses the preferred one of two uplinks.
func hostFailsOver(t *testing.T, o lab.Options, with bool) time.Duration {
	t.Helper()
	w := setUp(t, o)
	if o.NoNetworkManager {
		w.byHand()
	} else {
		w.waitUplinks()
		w.waitIPv6()
	}
	w.atRest()
	if with {
		w.must(w.Daemon().Activate(w.soon()))
		w.waitProperty(w.network, "IPv6State", "proxy")
		g, _, addr := w.guest6("vm1", prefixB)
		w.known(addr)
		w.must(waitSeen(w, g, prefixB))
	}
	p, err := w.Laptop.ProbeSockets(w.ctx, lab.EchoIPv6, lab.ProbeOptions{Interval: 20 * time.Millisecond})
	w.must(err)
	s, err := p.WaitSuccess(w.soon(), time.Now())
	w.must(err)
	if !prefixB.Contains(s.Seen.Addr()) {
		t.Fatalf("the host goes out as %s and not by the preferred uplink", s.Seen)
	}
	pulled := time.Now()
	w.must(w.Site("b").Unplug())
	w.eventually("the host reaches the internet by the other uplink", func() error {
		ctx, cancel := w.short()
		defer cancel()
		seen, err := w.Laptop.Reach(ctx, lab.EchoIPv6)
		if err == nil && !prefixA.Contains(seen.Addr()) {
			err = fmt.Errorf("it was seen as %s", seen)
		}
		return err
	})
	_, err = p.WaitSuccess(w.soon(), time.Now())
	w.must(err)
	return p.Finish().Blackout(pulled)
}

// sometimes is what depends on what was made first, and by whom: extensions of iptables that nft shows for one family alone, and how an
// address came about.
var sometimes = strings.NewReplacer(" masquerade", "", " tcp option maxseg size set rt mtu", "", " nodad", "")

// likewise is served without that.
func (w *world) likewise() picture {
	w.t.Helper()
	p := w.served()
	for key, text := range p {
		p[key] = sometimes.Replace(text)
	}
	return p
}

// Somebody breaks each thing that proxied guests need; the daemon, which isn't told, mends it.
func TestProxiedTampering(t *testing.T) {
	t.Parallel()
	w := onWiFi(t, lab.Options{})
	w.impatient("a")
	st, _ := w.station("a", "lan", prefixA, forgetful)
	g, addr := w.guestWith("vm1", "default", prefixA, lab.MachineOptions{})
	w.known(addr)
	before := w.likewise()
	keys := []string{"all/forwarding", "all/proxy_ndp", "wlan0/forwarding", "wlan0/force_forwarding", "gway0/forwarding", "gway0/force_forwarding", "gway0/disable_ipv6"}
	sysctls := func() string {
		return w.run("sh", "-c", "cd /proc/sys/net/ipv6/conf && grep -s . "+strings.Join(keys, " ")+" ../neigh/wlan0/proxy_delay; true")
	}
	sysctlsBefore := sysctls()
	for _, c := range []struct {
		name   string
		breaks string
		// differs says why the picture isn't quite the one of before, "" if it has to be
		differs string
	}{
		{"forwarding off everywhere", "sysctl -qw net.ipv6.conf.all.forwarding=1; sysctl -qw net.ipv6.conf.all.forwarding=0", ""},
		{"forwarding off on the uplink", "sysctl -qw net.ipv6.conf.wlan0.forwarding=0", ""},
		{"forwarding off on the bridge", "sysctl -qw net.ipv6.conf.gway0.forwarding=0", ""},
		{"forwarding forced no more", "for i in wlan0 gway0; do sysctl -qw net.ipv6.conf.$i.force_forwarding=0; done", ""},
		{"no proxies", "sysctl -qw net.ipv6.conf.all.proxy_ndp=0", ""},
		// The kernel tells nobody about proxied neighbours: it is mended with whatever happens next.
		{"proxy deleted", "ip -6 neigh del proxy " + addr.String() + " dev wlan0; ip link add x0 type bridge; ip link del x0", ""},
		{"guest's route deleted", "ip -6 route del " + addr.String() + "/128", ""},
		{"all our routes deleted", "ip -6 route flush table all proto 147", ""},
		{"default route deleted", "ip -6 route del default table 26450 metric 100", ""},
		{"table flushed", "ip -6 route flush table 26450", ""},
		{"rule deleted", "ip -6 rule del pref 21200", ""},
		{"rules deleted", "ip -6 rule del pref 21100; ip -6 rule del pref 21200", ""},
		{"filter of what is routed deleted", "nft delete table inet gangway", ""},
		{"ip6tables flushed", "ip6tables -F", ""},
		{"all flushed and our chains deleted", "for t in filter nat mangle; do ip6tables -t $t -F; ip6tables -t $t -X; done", ""},
		{"ruleset flushed", "nft flush ruleset", ""},
		// Nor about sets.
		{"sets emptied", "for s in local out; do ipset flush gangway6-$s; done; ip link add x0 type bridge; ip link del x0", ""},
		{"the bridge's addresses deleted", "ip -6 addr flush dev gway0", ""},
		{"IPv6 off on the bridge", "sysctl -qw net.ipv6.conf.gway0.disable_ipv6=1", ""},
		{"bridge down", "ip link set gway0 down", ""},
		{"port taken out", "ip link set " + g.Port + " nomaster", ""},
		{"bridge deleted", "ip link del gway0", "a new bridge has another index"},
	} {
		w.run("sh", "-c", c.breaks)
		after := w.likewise()
		w.eventually(c.name+": the network says so", func() error {
			if state := w.text(w.network, "IPv6State"); state != "proxy" {
				return fmt.Errorf("it is %s: %s", state, w.text(w.network, "IPv6Reason"))
			}
			return nil
		})
		w.must(waitSeen(w, g, prefixA))
		w.pingable(st.Host, addr)
		w.pingable(w.Laptop, addr)
		if now := sysctls(); now != sysctlsBefore {
			t.Errorf("%s: sysctls were\n%s\nand are\n%s", c.name, sysctlsBefore, now)
		}
		if d := before.diff(after); d != "" && c.differs == "" {
			if d = before.diff(w.likewise()); d != "" {
				t.Errorf("%s, and not mended wholly:\n%s", c.name, d)
			}
		}
	}
	state, err := g.IPv6()
	w.must(err)
	if !slices.Contains(state.Usable(prefixA), addr) || !state.HasRouter(w.self()) {
		t.Errorf("the guest's addresses are %v, its routers %v", state.Global(), state.Routers())
	}
	w.noViolations("a")
}
