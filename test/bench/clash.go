package main

import (
	"context"
	"net/netip"
	"time"

	"gangway/test/lab"
)

// clash docks at a site whose LAN is the guests' subnet and whose router has the bridge's
// address, once with Gangway and once without any virtual network, in turn.
func clash(ctx context.Context, c config) error {
	with := &series{name: "host, with Gangway: packets lost after the uplink is up", goal: "as without"}
	without := &series{name: "host, no virtual network: packets lost after it is up"}
	back := &series{name: "guest: on line again after the uplink's address came", unit: "ms", goal: "≤ 5000"}
	for range c.runs {
		lost, guest, err := clashOnce(ctx, c, false)
		if err != nil {
			return err
		}
		with.add(float64(lost))
		back.addMS(guest)
		if lost, _, err = clashOnce(ctx, c, true); err != nil {
			return err
		}
		without.add(float64(lost))
	}
	table("Subnet clash: the dock's LAN is the guests' subnet, its router the bridge's address", with, without, back)
	return nil
}

func clashOnce(ctx context.Context, c config, bare bool) (hostLost int, guestBack time.Duration, err error) {
	o := c.options()
	o.Sites = lab.DefaultSites()
	o.Sites[1].IPv4 = netip.MustParsePrefix("192.168.231.0/24")
	o.Sites[1].Unplugged = true
	p, err := raise(ctx, o, bare)
	if err != nil {
		return 0, 0, err
	}
	defer p.Close()
	if err := quiet(ctx); err != nil {
		return 0, 0, err
	}
	fast := lab.ProbeOptions{Interval: 5 * time.Millisecond, Timeout: 400 * time.Millisecond}
	host, err := p.Laptop.ProbeSockets(ctx, lab.EchoIPv4, fast)
	if err != nil {
		return 0, 0, err
	}
	var guest *lab.Probe
	if !bare {
		if guest, err = p.guest.ProbeSockets(ctx, lab.EchoIPv4, fast); err != nil {
			return 0, 0, err
		}
	}
	if err := p.Site("b").Plug(); err != nil {
		return 0, 0, err
	}
	if _, err := p.Laptop.WaitAddress(ctx, "eth0", o.Sites[1].IPv4); err != nil {
		return 0, 0, err
	}
	up := time.Now()
	if err := p.NM.WaitPrimary(ctx, "eth0"); err != nil {
		return 0, 0, err
	}
	if bare {
		if err := pause(ctx, 2*time.Second); err != nil {
			return 0, 0, err
		}
		return host.Finish().LostAfter(up), 0, nil
	}
	// The guest's first success by the new uplink, from a new address.
	if err := wait(ctx, "the guest's new lease", func() bool {
		l, err := p.guest.Lease()
		return err == nil && !o.Sites[1].IPv4.Overlaps(l.Address)
	}); err != nil {
		return 0, 0, err
	}
	leased := time.Now()
	if _, err := guest.WaitSuccess(ctx, leased); err != nil {
		return 0, 0, err
	}
	if err := pause(ctx, time.Second); err != nil {
		return 0, 0, err
	}
	settled, _ := guest.Finish().Settled(up)
	return host.Finish().LostAfter(up), settled, nil
}
