package main

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"github.com/vishvananda/netlink"

	"gangway/test/lab"
)

// proxyMany has guests say all at once that they have ever so many addresses, and takes their ports away again.
func proxyMany(ctx context.Context, c config) error {
	c.debug = true // the log tells how long passes take
	p, err := onWiFi(ctx, c)
	if err != nil {
		return err
	}
	defer p.Close()
	var list []*series
	for _, count := range []int{10, 100, 1000} {
		figures, err := p.many(ctx, count, max(2, c.runs/3), c.runs)
		if err != nil {
			return err
		}
		list = append(list, figures...)
	}
	table("Proxy: many addresses, learned from one advertisement each", list...)
	return p.refused(ctx)
}

// many measures with so many addresses, of as many guests as it takes.
func (p *laptop) many(ctx context.Context, count, runs, passes int) ([]*series, error) {
	name := func(format string) string { return fmt.Sprintf("%d addresses: ", count) + format }
	learned := &series{name: name("until the kernel routes and answers for all"), unit: "ms"}
	entries := &series{name: name("the kernel's routes and proxied neighbours"), unit: "", goal: fmt.Sprint(2 * count)}
	forgotten := &series{name: name("until it has none, their ports gone"), unit: "ms"}
	memorySize := &series{name: name("resident memory of gangwayd"), unit: "MiB"}
	idle := &series{name: name("a pass that changes nothing"), unit: "ms"}
	addresses := number(prefixA, 0x1000, count)
	for run := range runs {
		guests := make([]*lab.Guest, (count+addressesPerGuest-1)/addressesPerGuest)
		for i := range guests {
			var err error
			if guests[i], err = p.mute(ctx, fmt.Sprintf("m%dx%dx%d", count, run, i)); err != nil {
				return nil, err
			}
		}
		if err := quiet(ctx); err != nil {
			return nil, err
		}
		begun := time.Now()
		for i, g := range guests {
			if err := g.Send(unasked(g, addresses[i*addressesPerGuest:min(count, (i+1)*addressesPerGuest)])...); err != nil {
				return nil, err
			}
		}
		at, err := p.waitKnown(ctx, "wlan0", addresses, count)
		if err != nil {
			return nil, err
		}
		learned.addMS(at.Sub(begun))
		if err := quiet(ctx); err != nil {
			return nil, err
		}
		routed, answered, err := p.known("wlan0", addresses)
		if err != nil {
			return nil, err
		}
		entries.add(float64(routed + answered))
		pid, err := p.Daemon().PID(ctx)
		if err != nil {
			return nil, err
		}
		rss, _, err := memory(pid)
		if err != nil {
			return nil, err
		}
		memorySize.add(rss)
		if run == 0 {
			if err := p.idlePasses(ctx, passes, idle); err != nil {
				return nil, err
			}
		}
		begun = time.Now()
		if err := p.dropPorts(guests); err != nil {
			return nil, err
		}
		if at, err = p.waitKnown(ctx, "wlan0", addresses, 0); err != nil {
			return nil, err
		}
		forgotten.addMS(at.Sub(begun))
		for _, g := range guests {
			if err := g.Remove(ctx); err != nil {
				return nil, err
			}
		}
	}
	return []*series{learned, entries, forgotten, memorySize, idle}, nil
}

// unasked are advertisements of each of the addresses to all nodes.
func unasked(g *lab.Guest, addresses []netip.Addr) (frames [][]byte) {
	for _, a := range addresses {
		packet := lab.NeighborMessage(lab.LinkLocal(g.MAC), lab.AllNodes, lab.NeighborAdvert, 0x20, a, g.MAC)
		frames = append(frames, lab.Ethernet(lab.MulticastMAC(lab.AllNodes), g.MAC, lab.EtherIPv6, packet))
	}
	return frames
}

// dropPorts deletes the guests' ports, as the end of their virtual machines does.
func (p *laptop) dropPorts(guests []*lab.Guest) error {
	for _, g := range guests {
		link, err := p.Laptop.Netlink().LinkByName(g.Port)
		if err == nil {
			err = p.Laptop.Netlink().LinkDel(link)
		}
		if err != nil {
			return fmt.Errorf("cannot delete port %q: %w", g.Port, err)
		}
	}
	return nil
}

// passLine is what the daemon logs of a pass that changed nothing.
var passLine = regexp.MustCompile(`msg=pass observing=(\S+) planning=(\S+) applying=(\S+) ops=0\b`)

// idlePasses makes the daemon look at the machine so many times, by a rule that means nothing, and adds how long that took.
func (p *laptop) idlePasses(ctx context.Context, n int, took *series) error {
	rule := netlink.NewRule()
	rule.Priority, rule.Table = 32700, 254 // main, which is looked up later anyway
	nl := p.Laptop.Netlink()
	for i := range n {
		before, err := p.Daemon().Log()
		if err != nil {
			return err
		}
		change := nl.RuleAdd
		if i%2 == 1 {
			change = nl.RuleDel
		}
		if err := change(rule); err != nil {
			return err
		}
		if err := wait(ctx, "a pass", func() bool {
			log, err := p.Daemon().Log()
			if err != nil {
				return false
			}
			m := passLine.FindStringSubmatch(log[len(before):])
			if m == nil {
				return false
			}
			var sum time.Duration
			for _, text := range m[1:] {
				part, err := time.ParseDuration(text)
				if err != nil {
					return false
				}
				sum += part
			}
			took.addMS(sum)
			return true
		}); err != nil {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if n%2 == 1 {
		return nl.RuleDel(rule)
	}
	return nil
}
