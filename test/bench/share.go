package main

import (
	"context"
	"fmt"
	"time"

	"gangway/test/lab"
)

// share makes the laptop's only uplink a bridge and undoes it: what the host itself loses.
func share(ctx context.Context, c config) error {
	took := map[string]*series{}
	four := map[string]*series{}
	six := map[string]*series{}
	modes := []string{"bridge", "auto"}
	for _, mode := range modes {
		took[mode] = &series{name: fmt.Sprintf("SetSharing(%s): until it replies", mode), unit: "ms"}
		four[mode] = &series{name: "  host: IPv4 blackout", unit: "ms", goal: "≤ 1000"}
		six[mode] = &series{name: "  host: IPv6 blackout", unit: "ms"}
	}
	o := c.options()
	o.Sites = bridges()[1:]
	o.Sites[0].Bridge, o.Sites[0].HeedCarrier = "", false
	o.NMConfDir = c.data
	p, err := raise(ctx, o, false)
	if err != nil {
		return err
	}
	defer p.Close()
	for range c.runs {
		for _, mode := range modes {
			fast := lab.ProbeOptions{Interval: 2 * time.Millisecond, Timeout: 400 * time.Millisecond}
			h4, err := p.Laptop.ProbeSockets(ctx, lab.EchoIPv4, fast)
			if err != nil {
				return err
			}
			h6, err := p.Laptop.ProbeSockets(ctx, lab.EchoIPv6, fast)
			if err != nil {
				return err
			}
			for _, probe := range []*lab.Probe{h4, h6} {
				if _, err := probe.WaitSuccess(ctx, time.Now()); err != nil {
					return err
				}
			}
			if err := quiet(ctx); err != nil {
				return err
			}
			begun := time.Now()
			if err := p.call(ctx, root+"/uplink/eth0", "Uplink.SetSharing", mode).Err; err != nil {
				return err
			}
			took[mode].addMS(time.Since(begun))
			for _, probe := range []*lab.Probe{h4, h6} {
				if _, err := probe.WaitSuccess(ctx, time.Now()); err != nil {
					return err
				}
			}
			if err := pause(ctx, 3*time.Second); err != nil { // and that it stays so
				return err
			}
			four[mode].addMS(h4.Finish().Blackout(begun))
			six[mode].addMS(h6.Finish().Blackout(begun))
		}
	}
	table("Sharing the only uplink, an Ethernet interface", took["bridge"], four["bridge"], six["bridge"], took["auto"], four["auto"], six["auto"])
	return nil
}

// throughput6 sends to a station of the LAN, in turns, from a guest by the IPv6-only link, from one on a plain bridge that a plain
// veth pair joins to the uplink's (the same path, without us), and from one whose port is in the uplink's bridge itself.
func throughput6(ctx context.Context, c config) error {
	by := &series{name: "guest on gway0, by the IPv6-only link", unit: "Gb/s"}
	plain := &series{name: "guest on a plain bridge, joined by a plain veth pair", unit: "Gb/s"}
	direct := &series{name: "guest on the uplink's bridge itself", unit: "Gb/s"}
	ratio := &series{name: "ratio to the plain bridge, paired", unit: "", goal: "≥ 0.95"}
	hop := &series{name: "ratio to the uplink's bridge itself, paired", unit: ""}
	o := c.options()
	o.Sites = bridges()[1:]
	p, err := raise(ctx, o, false)
	if err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.guest.WaitIPv6(ctx, prefixB); err != nil {
		return err
	}
	if _, err := p.Laptop.Run(ctx, "sh", "-c", `ip link add plain0 type bridge mcast_snooping 0; ip link add plain1 type veth peer plain2
		ip link set plain1 master plain0; ip link set plain2 master br0; for l in plain0 plain1 plain2; do ip link set $l up; done`); err != nil {
		return err
	}
	guests := []*lab.Guest{p.guest}
	for bridge, name := range map[string]string{"plain0": "plain", "br0": "direct"} {
		g, err := p.AddGuest(ctx, name)
		if err != nil {
			return err
		}
		if err := g.AttachTo(bridge); err != nil {
			return err
		}
		if _, err := g.WaitIPv6(ctx, prefixB); err != nil {
			return err
		}
		guests = append(guests, g)
	}
	station, err := p.Site("b").AddStation(ctx, "lan", lab.StationOptions{})
	if err != nil {
		return err
	}
	to, err := station.WaitIPv6(ctx, prefixB)
	if err != nil {
		return err
	}
	for run := range 4 * c.runs { // one says little: they differ by a tenth from one to the next
		rates := map[string]float64{}
		for i := range guests {
			g := guests[(i+run)%len(guests)]
			if rates[g.Name], err = lab.Throughput(ctx, g.Host, station.Host, to, 600*time.Millisecond); err != nil {
				return err
			}
		}
		ours := rates[p.guest.Name]
		by.add(ours / 1e9)
		plain.add(rates["guest-plain"] / 1e9)
		direct.add(rates["guest-direct"] / 1e9)
		ratio.add(ours / rates["guest-plain"])
		hop.add(ours / rates["guest-direct"])
	}
	table("TCP over IPv6 from a guest to a station of the LAN, in turns", by, plain, direct, ratio, hop)
	return nil
}
