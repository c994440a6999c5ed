package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

var (
	vpnIPv4 = netip.MustParsePrefix("10.99.0.2/24")
	vpnIPv6 = netip.MustParsePrefix("fd99:1:2:3::2/128") // for the host alone, as most VPNs give one
)

// flood are packets without pause from guests to the internet: an old flow and many new ones each, by both families.
type flood []*lab.Probe

func (p *laptop) flood(ctx context.Context, guests ...*lab.Guest) (list flood, err error) {
	o := lab.ProbeOptions{Interval: 2 * time.Millisecond, Timeout: 400 * time.Millisecond}
	for _, g := range guests {
		for _, echo := range []netip.AddrPort{lab.EchoIPv4, lab.EchoIPv6} {
			for _, start := range []func(context.Context, netip.AddrPort, lab.ProbeOptions) (*lab.Probe, error){g.ProbeFlow, g.ProbeSockets} {
				probe, err := start(ctx, echo, o)
				if err != nil {
					return list, err
				}
				list = append(list, probe)
			}
		}
	}
	return list, nil
}

func (l flood) finish() {
	for _, p := range l {
		p.Finish()
	}
}

// flooding holds for what only guests send: on the other side of a NAT, too.
func flooding(f lab.Frame) bool {
	_, port := f.UDPPorts()
	return f.Outgoing && port == lab.EchoPort
}

// vpnFigures are what vpnLeak measures of each family.
type vpnFigures struct{ up, down *series }

// vpnLeak brings a full tunnel up while guests send, in each style in turn, and takes it down.
func vpnLeak(ctx context.Context, c config) error {
	past := &series{name: "packets of guests past the tunnel, after its routes", goal: "0"}
	in := &series{name: "  and in it meanwhile"}
	noticed := &series{name: "until guests are bound to the tunnel, after its routes", unit: "ms"}
	silence := map[bool]vpnFigures{}
	for _, six := range []bool{false, true} {
		name := map[bool]string{false: "IPv4", true: "IPv6"}[six]
		silence[six] = vpnFigures{
			&series{name: "longest time without a packet of guests on any way, up: " + name, unit: "ms"},
			&series{name: "  and down: " + name, unit: "ms"}}
	}
	o := c.options()
	o.Sites = wifiAndDesk()
	p, err := raiseProxied(ctx, o, prefixB)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.call(ctx, p.network, "Network.Update", map[string]godbus.Variant{"nat66-fallback": godbus.MakeVariant(true)}).Err; err != nil {
		return err
	}
	second, err := p.addGuest(ctx, "g2", p.network)
	if err == nil {
		_, err = second.WaitIPv6(ctx, prefixB)
	}
	if err != nil {
		return err
	}
	styles := []lab.VPNStyle{lab.VPNMetric, lab.VPNHalves, lab.VPNRules}
	for run := range c.runs {
		v, err := p.StartVPN(ctx, lab.VPNOptions{Name: fmt.Sprintf("tun%d", run), IPv4: vpnIPv4, IPv6: vpnIPv6, Style: styles[run%len(styles)]})
		if err != nil {
			return err
		}
		r, err := p.tunnelled(ctx, v, p.guest, second)
		if err != nil {
			return err
		}
		past.add(float64(r.past))
		in.add(float64(r.in))
		noticed.addMS(r.noticed)
		for six, s := range silence {
			s.up.addMS(r.up[six])
			s.down.addMS(r.down[six])
		}
	}
	table("A full-tunnel VPN comes up and goes, guests send without pause, IPv4 and IPv6, styles in turn", past, in, noticed,
		silence[false].up, silence[true].up, silence[false].down, silence[true].down)
	return nil
}

// tunnelling is what was seen of a VPN's time.
type tunnelling struct {
	past, in int
	noticed  time.Duration
	up, down map[bool]time.Duration // the longest silence around either, by family: whether it is IPv6
}

// tunnelled brings the VPN up and down again; guests follow it both times.
func (p *laptop) tunnelled(ctx context.Context, v *lab.VPN, guests ...*lab.Guest) (r tunnelling, err error) {
	if err := quiet(ctx); err != nil {
		return r, err
	}
	var wires []*lab.Capture
	for _, name := range []string{"eth0", "wlan0", v.Options.Name} {
		wire, err := p.Laptop.Capture(ctx, name)
		if err != nil {
			return r, err
		}
		wires = append(wires, wire)
	}
	sending, err := p.flood(ctx, guests...)
	if err != nil {
		return r, err
	}
	defer sending.finish()
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return r, err
	}
	begun := time.Now()
	up, err := v.Up()
	if err != nil {
		return r, err
	}
	if err := p.waitMoored6(ctx, v.Options.Name, "nat66"); err != nil {
		return r, err
	}
	r.noticed = time.Since(up)
	if err := p.seenAs(ctx, guests, v.Outside4, v.Outside6); err != nil {
		return r, err
	}
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return r, err
	}
	down := time.Now()
	if _, err := v.Down(); err != nil {
		return r, err
	}
	if err := p.waitMoored6(ctx, "eth0", "proxy"); err != nil {
		return r, err
	}
	for _, g := range guests {
		if _, err := g.WaitIPv6(ctx, prefixB); err != nil {
			return r, err
		}
	}
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return r, err
	}
	end := time.Now()
	during := func(f lab.Frame) bool { return f.Time.After(up.Round(0)) && f.Time.Before(down.Round(0)) }
	r.past = wires[0].Count(flooding, during) + wires[1].Count(flooding, during)
	r.in = wires[2].Count(flooding, during)
	r.up, r.down = silences(wires, begun, down), silences(wires, down, end)
	for _, wire := range wires {
		if err := wire.Close(); err != nil {
			return r, err
		}
	}
	return r, v.Close()
}

// silences are, by family, the longest times in which no packet of guests left by any of the wires.
func silences(wires []*lab.Capture, from, to time.Time) map[bool]time.Duration {
	longest := map[bool]time.Duration{}
	for _, six := range []bool{false, true} {
		at := []time.Time{from.Round(0), to.Round(0)}
		for _, wire := range wires {
			for _, f := range wire.Matching(flooding, func(f lab.Frame) bool {
				return f.DstIP().Is6() == six && f.Time.After(from.Round(0)) && f.Time.Before(to.Round(0))
			}) {
				at = append(at, f.Time)
			}
		}
		slices.SortFunc(at, time.Time.Compare)
		for i := 1; i < len(at); i++ {
			longest[six] = max(longest[six], at[i].Sub(at[i-1]))
		}
	}
	return longest
}

// waitMoored6 waits until guests are on the uplink by both families.
func (p *laptop) waitMoored6(ctx context.Context, uplink, state string) error {
	if err := p.waitUplink(ctx, uplink); err != nil {
		return err
	}
	return p.waitProperty(ctx, p.network, "Network.IPv6State", func(v any) bool { return v == state })
}

// seenAs waits until the internet sees each guest by these addresses.
func (p *laptop) seenAs(ctx context.Context, guests []*lab.Guest, four, six netip.Addr) error {
	for _, g := range guests {
		for echo, want := range map[netip.AddrPort]netip.Addr{lab.EchoIPv4: four, lab.EchoIPv6: six} {
			if err := wait(ctx, g.Name+" seen as "+want.String(), func() bool {
				short, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				seen, err := g.Reach(short, echo)
				return err == nil && seen.Addr() == want
			}); err != nil {
				return err
			}
		}
	}
	return nil
}
