package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gangway/test/lab"
)

// A guest may have so many addresses.
const addressesPerGuest = 60

// neighbour is a station of the link that asks where an address is.
type neighbour struct {
	*lab.Station
	uplink lab.Cable
	lost   int
}

// multicast is how it asks all who may have the address, unicast how it makes sure of who had it (RFC 4861 7.2.2, 7.3.3).
func (n *neighbour) multicast(target netip.Addr) []byte {
	group := lab.SolicitedNode(target)
	return lab.Ethernet(lab.MulticastMAC(group), n.MAC, lab.EtherIPv6, lab.NeighborMessage(lab.LinkLocal(n.MAC), group, lab.NeighborSolicitation, 0, target, n.MAC))
}

func (n *neighbour) unicast(target netip.Addr) []byte {
	return lab.Ethernet(n.uplink.MAC, n.MAC, lab.EtherIPv6, lab.NeighborMessage(lab.LinkLocal(n.MAC), target, lab.NeighborSolicitation, 0, target, n.MAC))
}

// ask puts a question on the wire for each target and adds up how long answers took there.
func (n *neighbour) ask(ctx context.Context, question func(netip.Addr) []byte, targets []netip.Addr, apart time.Duration, took *series) error {
	const perCapture = 200 // which is searched from its beginning
	for len(targets) > 0 {
		batch := targets[:min(perCapture, len(targets))]
		targets = targets[len(batch):]
		wire, err := n.Capture(ctx, lab.GuestInterface)
		if err != nil {
			return err
		}
		for _, target := range batch {
			if err = n.askOnce(ctx, wire, question(target), target, took); err != nil {
				break
			}
			if err = pause(ctx, apart); err != nil {
				break
			}
		}
		if err := errors.Join(err, wire.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (n *neighbour) askOnce(ctx context.Context, wire *lab.Capture, question []byte, target netip.Addr, took *series) error {
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	begun := time.Now()
	if err := n.Send(question); err != nil {
		return err
	}
	asked, err := wire.Wait(short, lab.All(lab.Outgoing, lab.After(begun), lab.IsNS, lab.About(target)))
	if err != nil {
		return err
	}
	answer, err := wire.Wait(short, lab.All(lab.Incoming, lab.After(asked.Time), lab.IsNA, lab.About(target)))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		n.lost++
		return nil
	}
	took.addMS(answer.Time.Sub(asked.Time))
	return nil
}

func repeated(a netip.Addr, n int) []netip.Addr {
	list := make([]netip.Addr, n)
	for i := range list {
		list[i] = a
	}
	return list
}

// neighbour adds a station to Wi-Fi.
func (p *laptop) neighbour(ctx context.Context) (*neighbour, error) {
	st, err := p.Site("a").AddStation(ctx, "lan", lab.StationOptions{})
	if err != nil {
		return nil, err
	}
	_, err = st.WaitIPv6(ctx, prefixA)
	return &neighbour{Station: st, uplink: *p.Site("a").Cables[0]}, err
}

// proxyAnswer has a neighbour on Wi-Fi ask for guests' addresses.
func proxyAnswer(ctx context.Context, c config) error {
	many := &series{name: "a known guest, asked of all (multicast)", unit: "ms", fine: true}
	one := &series{name: "a known guest, asked again (unicast)", unit: "ms", fine: true}
	found := &series{name: "on demand: a guest that never said a word", unit: "ms"}
	p, err := onWiFi(ctx, c)
	if err != nil {
		return err
	}
	defer p.Close()
	n, err := p.neighbour(ctx)
	if err != nil {
		return err
	}
	addr, err := p.guest.WaitIPv6(ctx, prefixA)
	if err != nil {
		return err
	}
	if _, err := p.waitKnown(ctx, "wlan0", []netip.Addr{addr}, 1); err != nil {
		return err
	}
	for _, way := range []struct {
		question func(netip.Addr) []byte
		took     *series
	}{{n.multicast, many}, {n.unicast, one}} {
		if err := n.ask(ctx, way.question, repeated(addr, 200*c.runs), time.Millisecond, way.took); err != nil {
			return err
		}
	}
	unknown := number(prefixA, 0x1000, 10*c.runs)
	for i := 0; i < len(unknown); i += addressesPerGuest {
		if _, err := p.silent(ctx, fmt.Sprintf("s%d", i), unknown[i:min(i+addressesPerGuest, len(unknown))]); err != nil {
			return err
		}
	}
	if err := quiet(ctx); err != nil {
		return err
	}
	if err := n.ask(ctx, n.multicast, unknown, 150*time.Millisecond, found); err != nil {
		return err
	}
	table("Proxy: a neighbour's solicitation until the advertisement, on the wire", many, many.by(0.99, "≤ 5"), one, one.by(0.99, "≤ 5"), found, found.by(0.95, ""), found.by(0.99, ""))
	fmt.Printf("  questions without an answer in 3 s: %d\n", n.lost)
	return p.refused(ctx)
}

// proxyIdle pings, from the link, guests that have been silent for long.
func proxyIdle(ctx context.Context, c config) error {
	aged := &series{name: "silent but for answers to the daemon's probes", unit: "ms", goal: "≤ 1000"}
	unknown := &series{name: "never heard of: on demand", unit: "ms", goal: "≤ 1000"}
	p, err := onWiFi(ctx, c)
	if err != nil {
		return err
	}
	defer p.Close()
	n, err := p.neighbour(ctx)
	if err != nil {
		return err
	}
	runs := min(c.runs, addressesPerGuest/2)
	heard, unheard := number(prefixA, 0x1000, runs), number(prefixA, 0x2000, runs)
	if _, err := p.silent(ctx, "s", append(heard, unheard...)); err != nil {
		return err
	}
	for _, a := range heard {
		if err := n.Ping(ctx, a); err != nil {
			return err
		}
	}
	if err := pause(ctx, c.silence); err != nil {
		return err
	}
	routed, answered, err := p.known("wlan0", heard)
	if err != nil {
		return err
	}
	for _, group := range []struct {
		addresses []netip.Addr
		took      *series
	}{{heard, aged}, {unheard, unknown}} {
		for _, a := range group.addresses {
			took, err := n.firstAnswer(ctx, a)
			if err != nil {
				return err
			}
			group.took.addMS(took)
		}
	}
	table("Proxy: a neighbour pings a guest, until the first answer", aged, unknown)
	fmt.Printf("  of %d silent addresses the kernel had %d routes and %d proxied neighbours after %v\n", runs, routed, answered, c.silence)
	return p.refused(ctx)
}

// firstAnswer pings with nothing in the station's neighbour cache.
func (n *neighbour) firstAnswer(ctx context.Context, to netip.Addr) (time.Duration, error) {
	if _, err := n.Run(ctx, "ip", "-6", "neigh", "flush", "dev", lab.GuestInterface); err != nil {
		return 0, err
	}
	begun := time.Now()
	probe, err := n.ProbePing(ctx, to, lab.ProbeOptions{})
	if err != nil {
		return 0, err
	}
	defer probe.Finish()
	s, err := probe.WaitSuccess(ctx, begun)
	return s.Sent.Add(s.RTT).Sub(begun), err
}
