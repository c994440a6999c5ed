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
	for _, set := range Sets() {
		for _, e := range without(want[set], fw.Sets[set]) {
			b.add(phaseFilter, AddSetEntry{Set: set, Entry: e})
		}
	}
	b.forgetEntries(want, gone)
}

// forgetEntries deletes what is in the sets and isn't wanted; first of all what is of subnets that
// are given up: from then on nothing of theirs passes.
func (b *builder) forgetEntries(want map[string][]vnet.SetEntry, gone []netip.Prefix) {
	for _, set := range slices.Backward(Sets()) {
		for _, e := range without(b.have.Firewall.Sets[set], want[set]) {
			phase := phaseRemoveFilter
			if slices.Contains(gone, e.Prefix) {
				phase = phaseGiveUp
			}
			b.add(phase, DeleteSetEntry{Set: set, Entry: e})
		}
	}
}

// givenUp lists the subnets that networks had and none has any more. When their bridge or its
// address is gone, an answer to a guest there would go out by the host's default route, with
// the source of whoever sent it, as long as its flow is tracked.
func (b *builder) givenUp(active []*Decision) []netip.Prefix {
	var gone []netip.Prefix
	consider := func(p netip.Prefix) {
		kept := slices.ContainsFunc(active, func(d *Decision) bool { return d.Subnet == p })
		if !kept && !slices.Contains(gone, p) {
			gone = append(gone, p)
		}
	}
	for _, e := range b.have.Firewall.Sets[SetLocal] {
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
	return sets
}
