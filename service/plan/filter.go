package plan

import "gangway/service/vnet"

// planFirewall keeps the chains in place while a network runs, and the sets' contents right.
func (b *builder) planFirewall() {
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
		wanted, there := map[vnet.SetEntry]bool{}, map[vnet.SetEntry]bool{}
		for _, e := range want[set] {
			wanted[e] = true
		}
		for _, e := range fw.Sets[set] {
			there[e] = true
			if !wanted[e] {
				b.add(phaseRemoveFilter, DeleteSetEntry{Set: set, Entry: e})
			}
		}
		for _, e := range want[set] {
			if !there[e] {
				b.add(phaseFilter, AddSetEntry{Set: set, Entry: e})
			}
		}
	}
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
