package plan

import (
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
	if len(active) == 0 {
		if fw.Present {
			b.add(phaseRemoveFilter, RemoveFirewall{})
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
	for _, set := range slices.Backward(Sets()) {
		for _, e := range without(fw.Sets[set], want[set]) {
			b.add(phaseRemoveFilter, DeleteSetEntry{Set: set, Entry: e})
		}
	}
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
