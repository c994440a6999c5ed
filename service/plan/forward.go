package plan

import (
	"slices"

	"gangway/service/vnet"
)

// planForward keeps the filter of what is routed in place: guests of one network reach each other by way
// of their bridge, those of two don't, and nobody passes a VPN by that the host goes into, not even
// in the moment between the VPN's route and our noticing it.
func (b *builder) planForward() {
	if b.have.BlindFirewall {
		return
	}
	if len(b.active()) == 0 {
		return // it goes with the chains
	}
	if spec := b.forwardSpec(); b.have.Firewall.Forward != spec.Digest() {
		b.add(phaseFilter, SetForward{Spec: spec})
	}
}

func (b *builder) forwardSpec() ForwardSpec {
	var spec ForwardSpec
	for _, d := range b.active() {
		// By the settings, not by what is in force: a change of uplink needs no other filter.
		if !d.settings.IsolatePorts {
			spec.Hairpin = append(spec.Hairpin, d.Bridge)
		}
		if d.settings.Uplink == "auto" && d.settings.VPN != "bypass" {
			spec.Follow = append(spec.Follow, d.Bridge)
		}
	}
	if len(spec.Follow) > 0 {
		spec.Plain = b.plainLinks()
	}
	slices.Sort(spec.Hairpin)
	slices.Sort(spec.Follow)
	return spec
}

// plainKinds are the kinds of links that lead to a link layer: what isn't among them may be a tunnel.
var plainKinds = []string{"", "bond", "bridge", "macvlan", "team", "veth", "vlan"}

// plainLinks are the interfaces by which packets leave as they are: the uplinks that are no tunnels, and whatever may
// become one of them, so that one that is plugged in needs no change here, for which guests would have to wait.
func (b *builder) plainLinks() []string {
	var names []string
	for _, l := range b.have.Kernel.Links {
		if l.Master != 0 || l.Loopback {
			continue
		}
		u, listed := b.have.Uplinks.Find(l.Name)
		_, own := OwnerOf(l)
		plain := l.Type == ethernetType && slices.Contains(plainKinds, l.Kind) && !own && !halfMade(l) && !isPairEnd(l)
		if listed && u.Kind != vnet.VPN || !listed && plain {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	return names
}
