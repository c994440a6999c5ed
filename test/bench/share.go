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

// throughput6 sends from a guest to a station of the LAN, by the IPv6-only link and, in turns, from a guest whose port is in
// the uplink's bridge itself.
func throughput6(ctx context.Context, c config) error {
	by := &series{name: "guest on gway0, by the IPv6-only link", unit: "Gb/s"}
	plain := &series{name: "guest on the uplink's bridge itself", unit: "Gb/s"}
	ratio := &series{name: "ratio of the two, paired", unit: "", goal: "≥ 0.95"}
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
	other, err := p.AddGuest(ctx, "plain")
	if err != nil {
		return err
	}
	if err := other.AttachTo("br0"); err != nil {
		return err
	}
	if _, err := other.WaitIPv6(ctx, prefixB); err != nil {
		return err
	}
	station, err := p.Site("b").AddStation(ctx, "lan", lab.StationOptions{})
	if err != nil {
		return err
	}
	to, err := station.WaitIPv6(ctx, prefixB)
	if err != nil {
		return err
	}
	for run := range c.runs {
		rates := map[*lab.Guest]float64{}
		order := []*lab.Guest{p.guest, other}
		if run%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		for _, g := range order {
			if rates[g], err = lab.Throughput(ctx, g.Host, station.Host, to, 2*time.Second); err != nil {
				return err
			}
		}
		by.add(rates[p.guest] / 1e9)
		plain.add(rates[other] / 1e9)
		ratio.add(rates[p.guest] / rates[other])
	}
	table("TCP over IPv6 from a guest to a station of the LAN, in turns", by, plain, ratio)
	return nil
}
