package plan

import (
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// planFirewall keeps the chains in place while a network runs, and the sets' contents right.
func (b *builder) planFirewall() {
	if b.have.BlindFirewall {
		return
	}
	active := b.active()
	fw := b.have.Firewall
	gone := b.givenUp(active)
	if len(gone) > 0 {
		defer b.add(phaseGiveUp, FlushFlows{Subnets: gone, TranslatedOnly: true, Why: "given up",
			Stale: func(vnet.Flow) bool { return true }})
	}
	if len(active) == 0 {
		if fw.Present {
			b.forgetEntries(nil, gone)
			b.add(phaseRemoveFirewall, RemoveFirewall{})
		}
		return
	}
	if !fw.Chains {
		b.add(phaseFilter, InstallChains{})
	}
	want := b.setEntries(active)
	for _, set := range allSets() {
		for _, e := range without(want[set], fw.Sets[set]) {
			b.add(phaseFilter, AddSetEntry{Set: set, Entry: e})
		}
	}
	b.forgetEntries(want, gone)
}

// forgetEntries deletes what is in the sets and isn't wanted; first of all what is of subnets that
// are given up: from then on nothing of theirs passes. At once, too, the ways out of those that have no other: under a VPN
// that hasn't their family, each packet more would be one past it.
func (b *builder) forgetEntries(want map[string][]vnet.SetEntry, gone []netip.Prefix) {
	for _, set := range slices.Backward(allSets()) {
		for _, e := range without(b.have.Firewall.Sets[set], want[set]) {
			phase := phaseRemoveFilter
			if slices.Contains(gone, e.Prefix) || (set == SetOut || set == SetOut6) && !hasPrefix(want[set], e.Prefix) {
				phase = phaseGiveUp
			}
			b.add(phase, DeleteSetEntry{Set: set, Entry: e})
		}
	}
}

func hasPrefix(entries []vnet.SetEntry, p netip.Prefix) bool {
	return slices.ContainsFunc(entries, func(e vnet.SetEntry) bool { return e.Prefix == p })
}

// givenUp lists the subnets that networks had and none has any more. When their bridge or its
// address is gone, an answer to a guest there would go out by the host's default route, with
// the source of whoever sent it, as long as its flow is tracked.
func (b *builder) givenUp(active []*Decision) []netip.Prefix {
	var gone []netip.Prefix
	consider := func(p netip.Prefix) {
		kept := slices.ContainsFunc(active, func(d *Decision) bool {
			return d.Subnet == p || d.router != nil && slices.Contains(d.router.prefixes, p)
		})
		if !kept && !slices.Contains(gone, p) {
			gone = append(gone, p)
		}
	}
	for _, e := range b.have.Firewall.Sets[SetLocal] {
		consider(e.Prefix)
	}
	for _, e := range b.have.Firewall.Sets[SetNAT6] {
		consider(e.Prefix)
	}
	bridges := map[int]bool{}
	for _, l := range b.have.Kernel.Links {
		_, bridges[l.Index] = OwnerOf(l)
	}
	for _, a := range b.have.Kernel.Addresses {
		if bridges[a.Link] && a.Prefix.Addr().Is4() {
			consider(a.Prefix.Masked())
		}
	}
	return gone
}

// without returns the entries of list that others lacks, in the order of list.
func without(list, others []vnet.SetEntry) []vnet.SetEntry {
	there := make(map[vnet.SetEntry]bool, len(others))
	for _, e := range others {
		there[e] = true
	}
	var missing []vnet.SetEntry
	for _, e := range list {
		if !there[e] {
			missing = append(missing, e)
		}
	}
	return missing
}

func (b *builder) setEntries(active []*Decision) map[string][]vnet.SetEntry {
	sets := map[string][]vnet.SetEntry{}
	add := func(set string, d *Decision, ifname string) {
		sets[set] = append(sets[set], vnet.SetEntry{Prefix: d.Subnet, Interface: ifname})
	}
	for _, d := range active {
		if !d.Subnet.IsValid() {
			continue
		}
		add(SetLocal, d, d.Bridge)
		if !d.routes4() {
			continue
		}
		for _, u := range d.outs {
			add(SetOut, d, u.Interface)
			if d.settings.IPv4Method == "nat" {
				add(SetNAT, d, u.Interface)
			}
		}
		if d.settings.IPv4Method == "routed" {
			add(SetInbound, d, d.Bridge)
		}
	}
	b.setEntries6(sets)
	return sets
}

// allSets are the names of the sets of both families, in the order in which entries are added.
func allSets() []string { return append(Sets(), Sets6()...) }

// halves of the IPv6 address space: a set has no prefix of length 0.
var halves = []netip.Prefix{netip.MustParsePrefix("::/1"), netip.MustParsePrefix("8000::/1")}

func (b *builder) setEntries6(sets map[string][]vnet.SetEntry) {
	add := func(set string, p netip.Prefix, ifname string) {
		if e := (vnet.SetEntry{Prefix: p, Interface: ifname}); !slices.Contains(sets[set], e) {
			sets[set] = append(sets[set], e)
		}
	}
	divisions := b.divisions()
	for _, d := range b.routed() {
		r := d.router
		for _, p := range r.prefixes {
			parts := divided(p, divisions[vnet.SetEntry{Prefix: p, Interface: d.Bridge}])
			for _, part := range parts {
				add(SetLocal6, part, d.Bridge)
			}
			if r.leaves() {
				add(SetOut6, p, r.up.Interface)
			}
			if r.leaves() && r.nat {
				add(SetNAT6, p, r.up.Interface)
			}
			if !r.nat && d.settings.Inbound == "allow" {
				for _, part := range parts {
					add(SetInbound6, part, d.Bridge)
				}
			}
		}
		if b.hostRoutes6() {
			continue
		}
		for _, name := range b.borrowing6(r) {
			for _, p := range halves {
				add(SetBorrowed6, p, name)
			}
		}
	}
}

// mostInterfaces is with how many interfaces a prefix is stored in a set. The kernel stores 64, but as soon as one prefix has
// so many, it has no room for a third interface with any other (bucketsize in its ip_set_hash_gen.h, mtype_add).
const mostInterfaces = 56

// divisions tells, by prefix and bridge, how often a prefix that many networks share is halved so that a set has room for it
// with the bridge: not at all for the first so many, once for the next. Who has a place keeps it, for entries are
// added before others are deleted.
func (b *builder) divisions() map[vnet.SetEntry]int {
	have := map[vnet.SetEntry]bool{}
	for _, e := range b.have.Firewall.Sets[SetLocal6] {
		have[e] = true
	}
	type place struct {
		prefix netip.Prefix
		times  int
	}
	taken, times := map[place]int{}, map[vnet.SetEntry]int{}
	var rest []vnet.SetEntry
	for _, d := range b.routed() {
	prefixes:
		for _, p := range d.router.prefixes {
			e := vnet.SetEntry{Prefix: p, Interface: d.Bridge}
			for n := 0; p.Bits()+n < p.Addr().BitLen() && n < mostDivisions; n++ {
				if have[vnet.SetEntry{Prefix: netip.PrefixFrom(p.Addr(), p.Bits()+n), Interface: d.Bridge}] {
					times[e] = n
					taken[place{p, n}]++
					continue prefixes
				}
			}
			rest = append(rest, e)
		}
	}
	for _, e := range rest {
		for taken[place{e.Prefix, times[e]}] >= mostInterfaces {
			times[e]++
		}
		taken[place{e.Prefix, times[e]}]++
	}
	return times
}

// mostDivisions is more than the networks that there may be take.
const mostDivisions = 8

// divided returns a prefix halved so many times.
func divided(p netip.Prefix, times int) []netip.Prefix {
	parts := []netip.Prefix{p}
	for range times {
		var halves []netip.Prefix
		for _, part := range parts {
			upper := part.Addr().As16()
			upper[part.Bits()/8] |= 0x80 >> (part.Bits() % 8)
			bits := part.Bits() + 1
			halves = append(halves, netip.PrefixFrom(part.Addr(), bits), netip.PrefixFrom(netip.AddrFrom16(upper), bits))
		}
		parts = halves
	}
	return parts
}

// borrowing6 are the interfaces that forward IPv6 for guests alone: the uplink, or, where the kernel has but one
// switch for all, all that aren't ours.
func (b *builder) borrowing6(r *router) []string {
	if _, forced := b.have.Kernel.Sysctls[forceForwarding("all")]; forced {
		return []string{r.up.Interface}
	}
	var names []string
	for _, l := range b.have.Kernel.Links {
		if l.Master == 0 && !l.Loopback && !isPairEnd(l) && l.Group&GroupMask != GroupBridge {
			names = append(names, l.Name)
		}
	}
	return names
}
