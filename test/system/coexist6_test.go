package system_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// Another firewall drops whatever is forwarded, bridged frames included, before the daemon's start and after.
func TestBridgedBesideDocker(t *testing.T) {
	t.Parallel()
	docker := func(w *world) {
		w.run("sh", "-c", "sysctl -qw net.bridge.bridge-nf-call-ip6tables=1; ip6tables -P FORWARD DROP; ip6tables -N DOCKER-USER; ip6tables -A DOCKER-USER -j RETURN; ip6tables -I FORWARD -j DOCKER-USER")
	}
	for _, first := range []string{"docker", "gangway"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			w := setUp(t, lab.Options{Sites: twoBridges()[1:]})
			w.waitUplinks()
			if first == "docker" {
				docker(w)
			}
			w.waitProperty(w.network, "IPv6State", "bridge")
			g, _, addr := w.guest6("vm1", prefixB)
			_, _, peer := w.guest6("vm2", prefixB)
			if first == "gangway" {
				docker(w)
			}
			w.settled()
			st, err := w.Site("b").AddStation(w.ctx, "lan", lab.StationOptions{})
			w.must(err)
			stAddr, err := st.WaitIPv6(w.soon(), prefixB)
			w.must(err)
			w.must(g.Ping(w.soon(), stAddr))
			w.must(st.Ping(w.soon(), addr))
			w.must(g.Ping(w.soon(), peer))
			w.must(waitSeen(w, g, prefixB))
			// What isn't ours is still dropped: a station behind somebody else's port of the uplink's bridge.
			stranger := w.strangerPort("br0")
			ctx, cancel := context.WithTimeout(w.ctx, 1500*time.Millisecond)
			defer cancel()
			if err := stranger.Ping(ctx, stAddr); err == nil {
				t.Error("a stranger's frames pass, and should not")
			}
			if !t.Failed() {
				w.run("ip6tables", "-F", "GANGWAY-FORWARD") // by somebody who doesn't know better
				w.must(g.Ping(w.soon(), stAddr))
			}
		})
	}
}

// strangerPort adds a machine to a bridge that isn't ours.
func (w *world) strangerPort(bridge string) *lab.Guest {
	w.t.Helper()
	g, err := w.AddGuest(w.ctx, "stranger")
	w.must(err)
	w.must(g.AttachTo(bridge))
	_, err = g.Run(w.ctx, "ip", "addr", "add", "2001:db8:b::5:5/64", "dev", lab.GuestInterface, "nodad")
	w.must(err)
	return g
}

// Guests of two networks on one uplink don't meet through it, and each reaches the link.
func TestTwoNetworksOnOneUplink(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{Sites: twoBridges()[1:]})
	other := w.create("other", options{})
	w.waitProperty(other, "IPv6State", "bridge")
	g, _, addr := w.guest6("vm1", prefixB)
	h := w.attached("vm2", other)
	peer, err := h.WaitIPv6(w.soon(), prefixB)
	w.must(err)
	st, err := w.Site("b").AddStation(w.ctx, "lan", lab.StationOptions{})
	w.must(err)
	stAddr, err := st.WaitIPv6(w.soon(), prefixB)
	w.must(err)
	for _, guest := range []*lab.Guest{g, h} {
		w.must(guest.Ping(w.soon(), stAddr))
		w.must(waitSeen(w, guest, prefixB))
	}
	heard, err := h.Capture(w.ctx, lab.GuestInterface)
	w.must(err)
	ctx, cancel := context.WithTimeout(w.ctx, 1500*time.Millisecond)
	defer cancel()
	if err := g.Ping(ctx, peer); err == nil {
		t.Errorf("%s reaches %s of the other network", addr, peer)
	}
	w.none(heard, "from a guest of another network", lab.FromMAC(g.MAC))
	w.call(other, "Network.Delete")
	w.must(g.Ping(w.soon(), stAddr))
}

// Stop takes everything away, and the host's IPv6 is what it was, before, during and after.
func TestBridgedLeavesNothing(t *testing.T) {
	t.Parallel()
	w := setUp(t, lab.Options{Sites: twoBridges()})
	w.waitUplinks()
	for _, s := range w.Sites {
		_, err := w.Laptop.WaitAddress(w.soon(), s.Options.Bridge, s.Options.IPv6)
		w.must(err)
	}
	w.eventually("IPv6 has default routes", func() error {
		if n := len(lines(w.run("ip", "-6", "route", "show", "default"))); n < 2 {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
	var before picture
	w.eventually("the laptop is at rest", func() error {
		last := before
		before = w.lookWhole()
		if d := last.diff(before); last == nil || d != "" || strings.Contains(before["ip -6 addr show"], "tentative") {
			return errors.New(d)
		}
		return nil
	})
	host := func() string {
		var own []string
		for _, line := range lines(w.run("sh", "-c", "ip -o -6 addr show | sed 's/valid_lft.*//'; ip -6 route show | grep -v gway; ip -6 rule show")) {
			for _, f := range fleeting {
				line = f.pattern.ReplaceAllString(line, f.by)
			}
			if !strings.Contains(line, "gway") && !strings.Contains(line, "port-") { // the cables of guests are theirs
				own = append(own, line)
			}
		}
		return strings.Join(own, "\n")
	}
	hostBefore := host()
	w.must(w.Daemon().Activate(w.soon()))
	w.waitProperty(w.network, "IPv6State", "bridge")
	g, watch, _ := w.guest6("vm1", prefixB)
	w.must(waitSeen(w, g, prefixB))
	if during := host(); during != hostBefore {
		t.Errorf("the host's IPv6 was\n%s\nand is\n%s", hostBefore, during)
	}
	w.noHostIPv6OnBridge()
	routerB := w.router("b")
	w.kill(unix.SIGTERM)
	_, err := watch.WaitNoRouter(w.soon(), routerB) // no guest is left on a route into nothing
	w.must(err)
	w.must(g.Remove(w.soon()))
	var after picture
	w.eventually("the laptop is as it was", func() error {
		after = w.lookWhole()
		if d := before.diff(after); d != "" {
			return errors.New(d)
		}
		return nil
	})
	if now := host(); now != hostBefore {
		t.Errorf("the host's IPv6 was\n%s\nand is\n%s", hostBefore, now)
	}
}

// A bridge whose cable is pulled fails over as the interface itself would, whether the daemon lives or not.
func TestUnpluggedBridgeFailsOver(t *testing.T) {
	t.Parallel()
	for _, alive := range []bool{true, false} {
		t.Run(fmt.Sprintf("daemon alive %v", alive), func(t *testing.T) {
			t.Parallel()
			w := bridged(t, lab.Options{})
			g, watch, _ := w.guest6("vm1", prefixB)
			w.must(waitSeen(w, g, prefixB))
			if !alive {
				w.kill(unix.SIGKILL)
			}
			host, err := w.Laptop.ProbeSockets(w.ctx, lab.EchoIPv4, lab.ProbeOptions{Interval: 20 * time.Millisecond})
			w.must(err)
			_, err = host.WaitSuccess(w.soon(), time.Now())
			w.must(err)
			pulled := time.Now()
			w.must(w.Site("b").Unplug())
			w.eventually("the bridge has no carrier", func() error {
				if out := w.run("ip", "-o", "link", "show", "br0"); !strings.Contains(out, "NO-CARRIER") {
					return errors.New(out)
				}
				return nil
			})
			w.must(w.NM.WaitPrimary(w.soon(), "br1"))
			w.reachesBy(w.Laptop, "a")
			result := host.Finish()
			if took := result.Blackout(pulled); took > 12*time.Second {
				t.Errorf("the host was off line for %v", took)
			} else {
				t.Logf("the host was off line for %v", took)
			}
			if !alive {
				w.must(w.Daemon().Activate(w.soon()))
			}
			_, _, err = watch.WaitAddress(w.soon(), prefixA)
			w.must(err)
			w.must(waitSeen(w, g, prefixA))
			w.must(w.Site("b").Plug())
			w.must(w.NM.WaitPrimary(w.soon(), "br0"))
			w.must(waitSeen(w, g, prefixB))
		})
	}
}

// Fifty flaps in ten seconds: guests end where the laptop does.
func TestFlaps(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{})
	g, watch, _ := w.guest6("vm1", prefixB)
	onA, onB := w.cable("eth1"), w.cable("eth0")
	for range 25 {
		for _, act := range []func() error{w.Site("b").Unplug, w.Site("b").Plug} {
			w.must(act())
			select {
			case <-time.After(200 * time.Millisecond): // that is the flapping
			case <-w.ctx.Done():
			}
		}
	}
	w.waitUplink(w.network, "br0")
	_, _, err := watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	w.must(waitSeen(w, g, prefixB))
	_, err = watch.WaitNoRouter(w.soon(), w.router("a"))
	w.must(err)
	w.none(onB, "advertisements of A on B", lab.RAWith(prefixA))
	w.none(onA, "advertisements of B on A", lab.RAWith(prefixB))
	w.settled()
}

// A guest that moves to another network forgets the routers of the first one's link.
func TestGuestMovesNetwork(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{})
	pinned := w.create("pinned", dict("uplink", "br1"))
	w.waitProperty(pinned, "IPv6State", "bridge")
	g, watch, _ := w.guest6("vm1", prefixB)
	w.call(w.network, "Network.Detach", g.Port)
	w.call(pinned, "Network.Attach", g.Port, options{})
	_, _, err := watch.WaitAddress(w.soon(), prefixA)
	w.must(err)
	w.must(waitSeen(w, g, prefixA))
	w.waitProperty(pinned, "IPv6Prefixes", []string{prefixA.String()})
}

// Under a full-tunnel VPN guests that follow it have no IPv6 past it; those that bypass it keep theirs.
func TestBridgedUnderVPN(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{})
	bypass := w.create("bypass", dict("vpn", "bypass"))
	w.waitProperty(bypass, "IPv6State", "bridge")
	g, watch, _ := w.guest6("vm1", prefixB)
	h := w.attached("vm2", bypass)
	_, err := h.WaitIPv6(w.soon(), prefixB)
	w.must(err)
	routerB := w.router("b")
	w.openTunnel(func() {})
	w.run("sh", "-c", "ip addr add 10.99.0.2/24 dev tun0; ip link set tun0 up; ip route add default dev tun0 metric 10")
	_, err = watch.WaitNoRouter(w.soon(), routerB)
	w.must(err)
	w.waitProperty(w.network, "IPv6State", "link-local")
	w.waitProperty(bypass, "IPv6State", "bridge")
	onB := w.cable("eth0")
	w.must(waitSeen(w, h, prefixB))
	w.cannotReach(g.Host, lab.EchoIPv6)
	w.none(onB, "from a guest that follows the VPN", lab.FromMAC(g.MAC))
	w.run("ip", "link", "set", "tun0", "down")
	_, _, err = watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	w.must(waitSeen(w, g, prefixB))
}

// Methods other than bridge, on a link where it would work.
func TestIPv6Methods(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{Sites: twoBridges()[1:]})
	g, watch, _ := w.guest6("vm1", prefixB)
	other := w.attached("vm2", w.network)
	routerB := w.router("b")
	bridgeHas := func(want int) {
		t.Helper()
		w.eventually(fmt.Sprintf("the bridge has %d IPv6 addresses", want), func() error {
			addresses, err := w.Laptop.Addresses("gway0")
			n := 0
			for _, a := range addresses {
				if a.Addr().Is6() {
					n++
				}
			}
			if err == nil && n != want {
				err = fmt.Errorf("it has %v", addresses)
			}
			return err
		})
		w.noHostIPv6OnBridge()
	}
	bridgeHas(1)
	for _, m := range []struct {
		method    string
		addresses int
	}{{"link-local", 1}, {"off", 0}, {"bridge", 1}, {"link-local", 1}, {"auto", 1}} {
		w.call(w.network, "Network.Update", dict("ipv6-method", m.method))
		state := m.method
		if m.method == "auto" {
			state = "bridge"
		}
		w.waitProperty(w.network, "IPv6State", state)
		bridgeHas(m.addresses)
		if state == "bridge" {
			_, _, err := watch.WaitAddress(w.soon(), prefixB)
			w.must(err)
			w.must(waitSeen(w, g, prefixB))
			continue
		}
		_, err := watch.WaitNoRouter(w.soon(), routerB)
		w.must(err)
		w.cannotReach(g.Host, lab.EchoIPv6)
		peer, err := other.WaitIPv6(w.soon(), linkLAN)
		w.must(err)
		peer, err = g.Scoped(peer, lab.GuestInterface)
		w.must(err)
		w.must(g.Ping(w.soon(), peer))
	}
	_, err := netip.ParsePrefix(w.text(w.network, "Subnet"))
	w.must(err)
	w.call(uplinkPath("br0"), "Uplink.SetSharing", "never")
	w.waitProperty(w.network, "IPv6State", "link-local")
	w.waitReason("br0 is set never to be shared")
	_, err = watch.WaitNoRouter(w.soon(), routerB)
	w.must(err)
	w.call(uplinkPath("br0"), "Uplink.SetSharing", "auto")
	w.waitProperty(w.network, "IPv6State", "bridge")
}
