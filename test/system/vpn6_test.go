package system_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

var (
	vpnIPv4 = netip.MustParsePrefix("10.99.0.2/24")
	vpnIPv6 = netip.MustParsePrefix("fd99:1:2:3::2/128") // for the host alone, as most VPNs give one
)

// tunnelWorld has guests that follow a VPN, pass it by, and are blocked by it.
type tunnelWorld struct {
	*world
	follow, bypass     *lab.Guest
	bypassIPv6         netip.Addr
	following, passing flows
	unnoticed          [][2]time.Time // from the tunnels' rise until the daemon's action
	style              lab.VPNStyle
	number             int // of the next
	vpn                *lab.VPN
	cables             map[string]*lab.Capture
	tunnel             *lab.Capture
	up, noticed, down  time.Time
}

func newTunnelWorld(t *testing.T, style lab.VPNStyle) *tunnelWorld {
	w := &tunnelWorld{world: start(t, lab.Options{Sites: wifiAndDesk()}), style: style}
	w.call(w.network, "Network.Update", dict("nat66-fallback", true))
	w.create("bypass", dict("vpn", "bypass"))
	w.create("block", dict("vpn", "block"))
	var guests []*lab.Guest
	for _, name := range []string{"default", "bypass", "block"} {
		o := lab.MachineOptions{}
		if name == "bypass" {
			o.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": fmt.Sprint(farTTL)}
		}
		network := root + "/network/" + netPath(name)
		w.waitProperty(network, "IPv6State", "proxy")
		g, err := w.AddGuestWith(w.ctx, name, o)
		w.must(err)
		w.call(network, "Network.Attach", g.Port, options{})
		w.lease(g, w.subnet(network))
		addr, err := g.WaitIPv6(w.soon(), prefixB)
		w.must(err)
		if name == "bypass" {
			w.bypassIPv6 = addr
		}
		guests = append(guests, g)
	}
	w.follow, w.bypass = guests[0], guests[1]
	w.following, w.passing = w.flood(w.follow, time.Millisecond), w.flood(w.bypass, 10*time.Millisecond)
	w.dial(guests[2])
	w.allAnswered(w.following)
	w.allAnswered(w.passing)
	return w
}

// begin lays the tunnel, and watches all ways out.
func (w *tunnelWorld) begin(has4, has6 bool) {
	w.t.Helper()
	o := lab.VPNOptions{Name: fmt.Sprintf("tun%d", w.number), Style: w.style}
	w.number++
	if has4 {
		o.IPv4 = vpnIPv4
	}
	if has6 {
		o.IPv6 = vpnIPv6
	}
	var err error
	w.vpn, err = w.StartVPN(w.ctx, o)
	w.must(err)
	w.cables = map[string]*lab.Capture{"wlan0": w.cable("wlan0"), "eth0": w.cable("eth0")}
	w.tunnel = w.cable(o.Name)
}

// goUp draws all traffic into the tunnel.
func (w *tunnelWorld) goUp() {
	w.t.Helper()
	var err error
	w.up, err = w.vpn.Up()
	w.must(err)
}

// end takes the tunnel away, and judges what left by the wires while it was up.
func (w *tunnelWorld) end(what string) {
	w.t.Helper()
	w.down = time.Now()
	_, err := w.vpn.Down()
	w.must(err)
	has := map[bool]bool{false: w.vpn.Options.IPv4.IsValid(), true: w.vpn.Options.IPv6.IsValid()}
	for name, c := range w.cables {
		for v6, carried := range has {
			past := []func(lab.Frame) bool{lab.Outgoing, inFamily(v6), lab.After(w.up), before(w.down), lab.Not(passing(w.bypassIPv6))}
			if !carried { // which nobody knows but the daemon
				if early := c.Matching(append(past, flooding, before(w.noticed))...); len(early) > 0 {
					w.t.Logf("%s: %d packets by %s of the family that the VPN hasn't, the last %v after it was up", what, len(early), name, early[len(early)-1].Time.Sub(w.up))
				}
				past = append(past, lab.After(w.noticed))
			}
			w.none(c, fmt.Sprintf("%s: past the VPN by %s (IPv6 %v)", what, name, v6), append(past, flooding)...)
			w.none(c, fmt.Sprintf("%s: of those who are blocked, by %s (IPv6 %v)", what, name, v6), append(past, dialling)...)
		}
	}
	w.none(w.tunnel, what+": of those who are blocked, in the tunnel", lab.Outgoing, dialling, lab.After(w.up), before(w.down))
	w.none(w.tunnel, what+": of those who pass the VPN by, in the tunnel", lab.Outgoing, passing(w.bypassIPv6))
	during := []func(lab.Frame) bool{lab.Outgoing, lab.After(w.up), before(w.down)}
	for v6, carried := range has {
		if n := w.tunnel.Count(append(during, inFamily(v6), flooding)...); carried && n == 0 {
			w.t.Errorf("%s: nothing went into the tunnel (IPv6 %v)", what, v6)
		}
		if n := w.cables["eth0"].Count(append(during, inFamily(v6), passing(w.bypassIPv6))...); n == 0 {
			w.t.Errorf("%s: nothing passed the VPN by (IPv6 %v)", what, v6)
		}
	}
	w.allAnswered(w.passing)
	w.unnoticed = append(w.unnoticed, [2]time.Time{w.up, w.noticed})
	for _, c := range w.cables {
		c.Close()
	}
	w.tunnel.Close()
	w.must(w.vpn.Close())
	w.allAnswered(w.following)
	w.waitProperty(w.network, "IPv6State", "proxy")
}

// untouched fails if who passes VPNs by lost packets over them.
func (w *tunnelWorld) untouched() {
	w.t.Helper()
	for _, p := range w.passing {
		for _, s := range p.Finish().Samples {
			// The kernel puts rules without a priority before ours, and whoever has noticed puts ours before them.
			excused := slices.ContainsFunc(w.unnoticed, func(u [2]time.Time) bool {
				return w.style == lab.VPNRules && s.Sent.After(u[0].Add(-100*time.Millisecond)) && s.Sent.Before(u[1])
			})
			if s.Lost() && !excused {
				w.t.Errorf("who passes VPNs by lost a packet at %v: %v", s.Sent.Format("15:04:05.000"), s.Err)
			}
		}
	}
}

// moved waits until those who follow are seen as the VPN, in each of its families.
func (w *tunnelWorld) moved() {
	w.t.Helper()
	if w.vpn.Options.IPv4.IsValid() {
		w.waitUplink(w.network, w.vpn.Options.Name)
		w.seenAs(w.follow, lab.EchoIPv4, w.vpn.Outside4)
	} else {
		w.waitProperty(w.network, "IPv4State", "offline")
	}
	if w.vpn.Options.IPv6.IsValid() {
		w.waitProperty(w.network, "IPv6State", "nat66")
		w.noticed = time.Now()
		w.waitReason(fmt.Sprintf("guests' addresses are translated to that of %[1]s; the VPN on %[1]s carries the default route", w.vpn.Options.Name))
		w.seenAs(w.follow, lab.EchoIPv6, w.vpn.Outside6)
		return
	}
	w.waitProperty(w.network, "IPv6State", "link-local")
	w.noticed = time.Now()
}

// From the instant in which the kernel has the VPN's routes until they are taken away not one packet of guests that follow
// it passes it by, whichever style it is of and whatever families it has.
func TestNoWayPastVPN(t *testing.T) {
	t.Parallel()
	for _, style := range []lab.VPNStyle{lab.VPNMetric, lab.VPNHalves, lab.VPNRules} {
		t.Run(string(style), func(t *testing.T) {
			t.Parallel()
			w := newTunnelWorld(t, style)
			settled := w.pictureAtRest()
			for _, has := range []struct{ v4, v6 bool }{{true, false}, {false, true}, {true, true}} {
				w.begin(has.v4, has.v6)
				w.goUp()
				w.moved()
				w.linger(300 * time.Millisecond)
				w.end(fmt.Sprintf("IPv4 %v, IPv6 %v", has.v4, has.v6))
			}
			w.untouched()
			if d := settled.diff(w.pictureAtRest()); d != "" {
				t.Errorf("after the VPNs the laptop isn't as before:\n%s", d)
			}
		})
	}
}

// The kernel alone sees to it: with a daemon that a debugger holds, and without any.
func TestNoWayPastVPNWithoutDaemon(t *testing.T) {
	t.Parallel()
	for _, style := range []lab.VPNStyle{lab.VPNMetric, lab.VPNHalves, lab.VPNRules} {
		t.Run(string(style), func(t *testing.T) {
			t.Parallel()
			w := newTunnelWorld(t, style)
			pid, err := w.Daemon().PID(w.ctx)
			w.must(err)
			w.begin(true, true)
			w.must(unix.Kill(pid, unix.SIGSTOP))
			w.goUp()
			w.linger(time.Second)
			w.must(unix.Kill(pid, unix.SIGCONT))
			w.moved()
			w.end("stopped")

			w.begin(true, true)
			w.kill(unix.SIGKILL)
			w.goUp()
			w.linger(time.Second)
			w.must(w.Daemon().Activate(w.soon()))
			w.moved()
			w.end("killed")
			w.untouched()
		})
	}
}

// A network that is pinned to an uplink is off line without that, and stays where it is whatever a VPN does.
func TestPinnedBesideVPN(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: wifiAndDesk()})
	pinned := w.create("pinned", dict("uplink", "wlan0", "nat66-fallback", true))
	w.waitProperty(pinned, "IPv6State", "proxy")
	g := w.attached("vm1", pinned)
	w.lease(g, w.subnet(pinned))
	w.must(waitSeen(w, g, prefixA))
	w.reachesBy(g.Host, "a")
	sending := w.flood(g, 5*time.Millisecond)
	for i, style := range []lab.VPNStyle{lab.VPNMetric, lab.VPNHalves, lab.VPNRules} {
		vpn, err := w.StartVPN(w.ctx, lab.VPNOptions{Name: fmt.Sprintf("tun%d", i), IPv4: vpnIPv4, IPv6: vpnIPv6, Style: style})
		w.must(err)
		others := map[string]*lab.Capture{"eth0": w.cable("eth0"), vpn.Options.Name: w.cable(vpn.Options.Name)}
		_, err = vpn.Up()
		w.must(err)
		w.waitUplink(w.network, vpn.Options.Name)
		w.allAnswered(sending)
		w.must(w.Site("a").Unplug())
		w.waitUplink(pinned, "")
		w.waitProperty(pinned, "IPv4State", "offline")
		w.waitProperty(pinned, "IPv6State", "link-local")
		w.linger(300 * time.Millisecond)
		w.must(w.Site("a").Plug())
		w.waitProperty(pinned, "IPv6State", "proxy")
		w.must(waitSeen(w, g, prefixA))
		w.reachesBy(g.Host, "a")
		_, err = vpn.Down()
		w.must(err)
		w.waitUplink(w.network, "eth0")
		w.allAnswered(sending)
		for name, c := range others {
			w.none(c, string(style)+": of the pinned by "+name, lab.Outgoing, flooding)
			w.must(c.Close())
		}
		w.must(vpn.Close())
	}
}

// Without leave to translate, guests that follow a VPN have no IPv6 under it.
func TestVPNWithoutNAT66(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: wifiAndDesk()[1:]})
	g, _, _ := w.guest6("vm1", prefixB)
	w.must(waitSeen(w, g, prefixB))
	vpn, err := w.StartVPN(w.ctx, lab.VPNOptions{Name: "tun0", IPv4: vpnIPv4, IPv6: vpnIPv6})
	w.must(err)
	_, err = vpn.Up()
	w.must(err)
	w.waitProperty(w.network, "IPv6State", "link-local")
	w.waitReason("the VPN on tun0 has IPv6 for the host alone; nat66-fallback would translate guests' addresses")
	w.cannotReach(g.Host, lab.EchoIPv6)
	w.call(w.network, "Network.Update", dict("nat66-fallback", true))
	w.seenAs(g, lab.EchoIPv6, vpn.Outside6)
	_, err = vpn.Down()
	w.must(err)
	w.must(waitSeen(w, g, prefixB))
}
