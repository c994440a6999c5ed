package plan

import (
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// planFlows has tracked connections deleted whose translation no longer fits, whenever the
// way out changes, and in a process's first pass: the one before may have been killed
// between the switch and this.
func (b *builder) planFlows() {
	if b.have.BlindFirewall {
		return
	}
	active := b.active()
	var translated6 []netip.Prefix
	for _, d := range b.routed() {
		if d.router.nat {
			translated6 = append(translated6, d.router.prefixes...)
		}
	}
	b.flushFlows(phaseFlows, active, SetNAT, anywhere, subnetsOf(active))
	b.flushFlows(phaseRoute6, active, SetNAT6, anywhere6, translated6)
}

// flushFlows is planFlows for one family: its set of what is translated, its default route, and its guests.
func (b *builder) flushFlows(phase int, active []*Decision, set string, everywhere netip.Prefix, subnets []netip.Prefix) {
	isDefault := func(op Op) bool {
		r, ok := op.(ReplaceRoute)
		return ok && r.Route.Metric == boundMetric && r.Route.Dst == everywhere
	}
	why, translatedOnly := "", false
	switch {
	case b.have.First:
		why = "first look"
	case b.changed(phaseFilter, func(op Op) bool { e, ok := op.(AddSetEntry); return ok && e.Set == set }):
		why = "the translation changed"
	case b.changed(phaseRoute, isDefault) || b.changed(phaseRoute6, isDefault):
		why = "the default route changed"
		translatedOnly = true
	}
	if why != "" && len(subnets) > 0 {
		b.add(phase, FlushFlows{Subnets: subnets, TranslatedOnly: translatedOnly, Why: why, Stale: b.staleness(active)})
	}
}

// staleness returns the judgement on flows: one is stale when its packets would now leave by
// an interface that doesn't have the address which they were translated to.
func (b *builder) staleness(active []*Decision) func(vnet.Flow) bool {
	e := newEgress(&b.have)
	return func(f vnet.Flow) bool {
		for _, d := range active {
			if r := d.router; r != nil && r.nat && r.prefixes[0].Contains(f.Source) {
				if e.local(f.Destination) || f.Destination.IsMulticast() || r.prefixes[0].Contains(f.Destination) {
					return false
				}
				link, specific := e.specific(f.Destination)
				if !specific {
					link = r.up.Index
				}
				return !e.ours[link] && !e.has(link, f.Translated)
			}
			if !d.routes4() || !d.Subnet.Contains(f.Source) {
				continue
			}
			if e.local(f.Destination) || f.Destination.IsMulticast() || d.Subnet.Contains(f.Destination) {
				return false
			}
			link, specific := e.specific(f.Destination)
			if !specific {
				if d.Uplink == "" { // offline: the same uplink may come back, and then it fits
					return false
				}
				link = d.bound.Index
			}
			if e.ours[link] {
				return false // between networks nothing is translated
			}
			if d.settings.IPv4Method == "routed" {
				return f.Translated != f.Source
			}
			return !e.has(link, f.Translated)
		}
		return false
	}
}

// egress answers where main's specific routes lead, without its default route: what the
// first of a bridge's two rules looks up.
type egress struct {
	routes    []vnet.Route
	addresses map[int]map[netip.Addr]bool
	locals    map[netip.Addr]bool
	ours      map[int]bool
}

func newEgress(have *vnet.Observed) *egress {
	e := &egress{addresses: map[int]map[netip.Addr]bool{}, locals: map[netip.Addr]bool{}, ours: map[int]bool{}}
	for _, r := range slices.Concat(have.Kernel.Routes, have.Kernel.Routes6) {
		if r.Table == mainTable && r.Type == vnet.RouteUnicast && r.Dst.Bits() > defaultBits {
			e.routes = append(e.routes, r)
		}
	}
	for _, a := range have.Kernel.Addresses {
		if e.addresses[a.Link] == nil {
			e.addresses[a.Link] = map[netip.Addr]bool{}
		}
		e.addresses[a.Link][a.Prefix.Addr()] = true
		e.locals[a.Prefix.Addr()] = true
	}
	for _, l := range have.Kernel.Links {
		if _, ok := OwnerOf(l); ok {
			e.ours[l.Index] = true
		}
	}
	return e
}

func (e *egress) local(a netip.Addr) bool { return e.locals[a] }

func (e *egress) has(link int, a netip.Addr) bool { return e.addresses[link][a] }

// specific returns the link of the longest match, the lowest metric first.
func (e *egress) specific(dst netip.Addr) (link int, ok bool) {
	var best vnet.Route
	for _, r := range e.routes {
		if !r.Dst.Contains(dst) {
			continue
		}
		if !ok || r.Dst.Bits() > best.Dst.Bits() || r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric {
			best, ok = r, true
		}
	}
	return best.Link, ok
}
