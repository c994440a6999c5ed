package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"gangway/test/lab"
)

// probes are what is measured during a switch, host and guest at once.
type probes struct {
	host, flow, sockets, dns *lab.Probe
	begun                    time.Time
}

func (p *laptop) probe(ctx context.Context) (*probes, error) {
	fast := lab.ProbeOptions{Interval: 2 * time.Millisecond, Timeout: 400 * time.Millisecond}
	ports := fast
	ports.Ports = 250 // each source port comes again every 500 ms, when the probe before has given it up
	slow := lab.ProbeOptions{Interval: 10 * time.Millisecond, Timeout: 400 * time.Millisecond}
	var s probes
	var err error
	if s.host, err = p.Laptop.ProbeSockets(ctx, lab.EchoIPv4, fast); err != nil {
		return nil, err
	}
	if s.flow, err = p.guest.ProbeFlow(ctx, lab.EchoIPv4, fast); err != nil {
		return nil, err
	}
	if s.sockets, err = p.guest.ProbeSockets(ctx, lab.EchoIPv4, ports); err != nil {
		return nil, err
	}
	if s.dns, err = p.guest.ProbeDNS(ctx, netip.AddrPortFrom(p.gateway, 53), "site.example", slow); err != nil {
		return nil, err
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return nil, err
	}
	s.begun = time.Now()
	return &s, nil
}

// unplug cuts the carrier of the primary uplink while the other is up.
func unplug(ctx context.Context, c config) error {
	host := &series{name: "host: IPv4 blackout", unit: "ms"}
	flow := &series{name: "guest: blackout of a long flow", unit: "ms", goal: "≤ 500"}
	sockets := &series{name: "guest: blackout of new connections", unit: "ms", goal: "≤ 500"}
	dns := &series{name: "guest: DNS blackout", unit: "ms", goal: "≤ 1000"}
	p, err := raise(ctx, c.options(), false)
	if err != nil {
		return err
	}
	defer p.Close()
	for range c.runs {
		if err := quiet(ctx); err != nil {
			return err
		}
		s, err := p.probe(ctx)
		if err != nil {
			return err
		}
		if err := p.Site("b").Unplug(); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, "wlan0"); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		host.addMS(s.host.Finish().Blackout(s.begun))
		flow.addMS(s.flow.Finish().Blackout(s.begun))
		sockets.addMS(s.sockets.Finish().Blackout(s.begun))
		dns.addMS(s.dns.Finish().Blackout(s.begun))
		if err := p.Site("b").Plug(); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, "eth0"); err != nil {
			return err
		}
	}
	table("Unplug: carrier of the primary lost, the other uplink up", host, flow, sockets, dns)
	return nil
}

// dockIn gives the preferred uplink its carrier while the other stays up.
func dockIn(ctx context.Context, c config) error {
	outage := &series{name: "guest: longest outage, flow", unit: "ms", goal: "≤ 20"}
	lost := &series{name: "guest: packets of a flow lost", goal: "≤ 1"}
	newOutage := &series{name: "guest: longest outage, new connections", unit: "ms", goal: "≤ 20"}
	newLost := &series{name: "guest: new connections lost", goal: "≤ 1"}
	hostLost := &series{name: "host: new connections lost"}
	dns := &series{name: "guest: DNS by the new servers after NM's PrimaryConnection", unit: "ms", goal: "≤ 100"}
	p, err := raise(ctx, c.options(), false)
	if err != nil {
		return err
	}
	defer p.Close()
	for range c.runs {
		if err := p.Site("b").Unplug(); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, "wlan0"); err != nil {
			return err
		}
		if err := quiet(ctx); err != nil {
			return err
		}
		s, err := p.probe(ctx)
		if err != nil {
			return err
		}
		primary, err := p.watchPrimary()
		if err != nil {
			return err
		}
		if err := p.Site("b").Plug(); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, "eth0"); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		flow, sockets, names := s.flow.Finish(), s.sockets.Finish(), s.dns.Finish()
		outage.addMS(flow.Blackout(s.begun))
		lost.add(float64(flow.LostAfter(s.begun)))
		newOutage.addMS(sockets.Blackout(s.begun))
		newLost.add(float64(sockets.LostAfter(s.begun)))
		hostLost.add(float64(s.host.Finish().LostAfter(s.begun)))
		changed, ok := primary()
		if !ok {
			return fmt.Errorf("NetworkManager announced no change of PrimaryConnection")
		}
		if at, ok := answeredBy(names, "b", s.begun); ok {
			dns.addMS(max(0, at.Sub(changed)))
		}
	}
	table("Dock in: the preferred uplink appears, both are up", outage, lost, newOutage, newLost, hostLost, dns)
	return nil
}

// answeredBy returns when the first question was sent that the site's own DNS server answered.
func answeredBy(r lab.Result, site string, after time.Time) (time.Time, bool) {
	for _, s := range r.Samples {
		if !s.Lost() && s.Sent.After(after) && slices.Contains(s.Answer.Texts, site) {
			return s.Sent, true
		}
	}
	return time.Time{}, false
}

// roam takes the primary connection down, so that the other is all there is.
func roam(ctx context.Context, c config) error {
	guest := &series{name: "guest: longest outage, flow", unit: "ms"}
	host := &series{name: "host: longest outage", unit: "ms"}
	difference := &series{name: "guest's minus host's, same run", unit: "ms", goal: "≤ 20"}
	sites := lab.DefaultSites()
	o := c.options()
	o.Sites = sites
	p, err := raise(ctx, o, false)
	if err != nil {
		return err
	}
	defer p.Close()
	for range c.runs {
		// Only the dock is there; then it goes and Wi-Fi comes.
		if _, err := p.NM.Cli(ctx, "device", "disconnect", "wlan0"); err != nil {
			return err
		}
		if err := quiet(ctx); err != nil {
			return err
		}
		s, err := p.probe(ctx)
		if err != nil {
			return err
		}
		if _, err := p.NM.Cli(ctx, "device", "disconnect", "eth0"); err != nil {
			return err
		}
		if _, err := p.NM.Cli(ctx, "device", "connect", "wlan0"); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, "wlan0"); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		h, g := s.host.Finish().Blackout(s.begun), s.sockets.Finish().Blackout(s.begun)
		s.flow.Finish()
		s.dns.Finish()
		host.addMS(h)
		guest.addMS(g)
		difference.addMS(g - h)
		if _, err := p.NM.Cli(ctx, "device", "connect", "eth0"); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, "eth0"); err != nil {
			return err
		}
	}
	table("Roam: the only uplink goes, then another comes", host, guest, difference)
	return nil
}
