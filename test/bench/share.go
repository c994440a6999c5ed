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
