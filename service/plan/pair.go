package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"gangway/service/vnet"
)

// PairNames returns the names of the ends of a network's IPv6-only link: the inner is a port of
// the network's bridge, the outer of the uplink's.
func PairNames(network string) (inner, outer string) {
	sum := sha256.Sum256([]byte(network))
	stem := PairPrefix + hex.EncodeToString(sum[:4])
	return stem + "n", stem + "u"
}

// pairMAC is the MAC address of an end. It is higher than a card's (locally administered, fe:…), for a bridge
// without an address of its own takes the lowest of its ports'.
func pairMAC(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("fe:67:77:%02x:%02x:%02x", sum[0], sum[1], sum[2])
}

// InnerOf returns the network whose IPv6-only link's inner end the link is.
func InnerOf(l vnet.Link) (network string, ok bool) { return aliased(l, InnerAliasPrefix) }

// OuterOf returns the network whose IPv6-only link's outer end the link is.
func OuterOf(l vnet.Link) (network string, ok bool) { return aliased(l, OuterAliasPrefix) }

func aliased(l vnet.Link, prefix string) (network string, ok bool) {
	network, ok = strings.CutPrefix(l.Alias, prefix)
	return network, ok && network != "" && l.Kind == "veth"
}

// isPairEnd tells whether the link is an end of a pair of ours, be it half made.
func isPairEnd(l vnet.Link) bool {
	return l.Kind == "veth" && l.Group&GroupMask == GroupPair && strings.HasPrefix(l.Name, PairPrefix)
}

func (b *builder) outer(network string) (vnet.Link, bool) {
	_, name := PairNames(network)
	l, ok := b.have.Kernel.LinkByName(name)
	owner, ours := OuterOf(l)
	return l, ok && ours && owner == network
}

func (b *builder) inner(network string) (vnet.Link, bool) {
	name, _ := PairNames(network)
	l, ok := b.have.Kernel.LinkByName(name)
	owner, ours := InnerOf(l)
	return l, ok && ours && owner == network
}

// GateOpen tells whether an outer end may be up: a bridge has carrier while any of its ports has, so
// that ours must not be the last. Otherwise the host would never learn that its cable is unplugged.
func GateOpen(k *vnet.Kernel, outer vnet.Link) bool {
	return outer.Master != 0 && HasForeignCarrier(k, outer.Master)
}

// HasForeignCarrier tells whether a port of the bridge with the index that isn't ours has carrier.
func HasForeignCarrier(k *vnet.Kernel, bridge int) bool {
	return slices.ContainsFunc(k.Links, func(l vnet.Link) bool {
		return l.Master == bridge && l.Up && l.Carrier && !isPairEnd(l)
	})
}

// planPairs makes, moves and removes IPv6-only links.
func (b *builder) planPairs() {
	wanted := map[string]bool{}
	for _, d := range b.active() {
		if d.uplink6 != nil && !b.have.BlindFirewall {
			wanted[d.Name] = true
			b.planPair(d)
		} else if outer, ok := b.outer(d.Name); ok && b.have.BlindFirewall && d.uplink6 != nil && outer.Master == d.uplink6.Index {
			wanted[d.Name] = true // it stays as it is until the filter can be looked at
		}
	}
	b.removePairs(wanted)
	guarded := maps.Clone(wanted)
	for _, d := range b.routed() {
		if spec := b.routerGuard(d); len(spec.Retired) > 0 && !b.have.BlindFirewall {
			guarded[d.Name] = true
			if _, exists := b.ours()[d.Name]; exists && b.have.Firewall.Guards[d.Name] != spec.Digest() {
				b.add(phasePair, SetGuard{Spec: spec})
			}
		}
	}
	for _, network := range sortedKeys(b.have.Firewall.Guards) {
		if !guarded[network] && !b.have.BlindFirewall {
			b.add(phaseRemoveFilter, DeleteGuard{Network: network})
		}
	}
	switch {
	case len(wanted) > 0 && !b.have.Gate:
		b.add(phasePair, StartGate{})
	case len(wanted) == 0 && b.have.Gate:
		b.add(phaseReturn, StopGate{})
	}
}

func (b *builder) removePairs(wanted map[string]bool) {
	for _, l := range b.have.Kernel.Links {
		if network, ok := OuterOf(l); ok && !wanted[network] && l.Master != 0 {
			b.add(phaseGate, LeaveBridge{Link: l.Name})
		}
		network, inner := InnerOf(l)
		switch {
		case inner && !wanted[network]:
			b.add(phaseRemoveBridge, DeletePair{Inner: l.Name, Alias: l.Alias})
		case isPairEnd(l) && l.Alias == "" && !b.completes(l, wanted):
			b.add(phaseRemoveBridge, DeletePair{Inner: l.Name})
		}
	}
}

// completes tells whether a half-made end is one that CreatePair is about to complete.
func (b *builder) completes(l vnet.Link, wanted map[string]bool) bool {
	for network := range wanted {
		inner, outer := PairNames(network)
		if l.Name == inner || l.Name == outer {
			return true
		}
	}
	return false
}

// planPair makes one network's link and joins it to the two bridges. Nothing is joined unless the guard
// was seen in place, so that a new link takes two rounds.
func (b *builder) planPair(d *Decision) {
	up := d.uplink6
	bridge, _ := b.have.Kernel.LinkByIndex(up.Index)
	inner, haveInner := b.inner(d.Name)
	outer, haveOuter := b.outer(d.Name)
	innerName, outerName := PairNames(d.Name)
	guard := b.guard(d)
	standing := b.have.Firewall.Guards[d.Name]
	if !haveInner || !haveOuter {
		b.add(phasePair, CreatePair{Network: d.Name, Inner: innerName, Outer: outerName,
			InnerAlias: InnerAliasPrefix + d.Name, OuterAlias: OuterAliasPrefix + d.Name,
			InnerMAC: pairMAC(innerName), OuterMAC: pairMAC(outerName), MTU: bridge.MTU})
		b.add(phasePair, SetGuard{Spec: guard})
		return
	}
	if standing != guard.Digest() {
		b.add(phasePair, SetGuard{Spec: guard})
	}
	if outer.Master != 0 && outer.Master != up.Index {
		b.add(phaseGate, LeaveBridge{Link: outerName})
	}
	for _, l := range []vnet.Link{inner, outer} {
		if l.MTU != bridge.MTU && bridge.MTU != 0 {
			b.add(phasePair, SetMTU{Name: l.Name, MTU: bridge.MTU})
		}
	}
	if !guard.suffices(standing, bridge.MAC) {
		if outer.Master == up.Index {
			b.add(phaseGate, LeaveBridge{Link: outerName})
		}
		return
	}
	own, exists := b.ours()[d.Name]
	if !exists || own.Name != d.Bridge {
		return // the network's own bridge comes first
	}
	if inner.Master != own.Index {
		b.add(phasePair, JoinBridge{Link: innerName, Bridge: d.Bridge})
	}
	if !inner.Up || inner.Master != own.Index {
		b.add(phasePair, SetLinkUp{Name: innerName})
	}
	open := HasForeignCarrier(&b.have.Kernel, up.Index)
	joining := outer.Master != up.Index
	if joining {
		b.add(phasePair, FlushPort{Link: innerName})
		b.add(phasePair, JoinBridge{Link: outerName, Bridge: up.Interface, Isolated: true})
	} else if !outer.Isolated {
		b.add(phasePair, JoinBridge{Link: outerName, Bridge: up.Interface, Isolated: true})
	}
	switch {
	case open && (joining || !outer.Up):
		b.add(phasePair, SetLinkUp{Name: outerName})
	case !open && !joining && outer.Up:
		b.add(phaseGate, SetLinkDown{Name: outerName})
	}
	if joining || b.have.First {
		b.add(phaseAnnounce, Announce{Network: d.Name, Bridge: d.Bridge, Uplink: up.Interface, Inner: innerName})
	}
}

// guard is what is to be dropped on the network's link.
func (b *builder) guard(d *Decision) GuardSpec {
	spec := GuardSpec{Network: d.Name}
	spec.Inner, spec.Outer = PairNames(d.Name)
	if d.settings.HostAccess == "services" {
		for _, u := range b.have.Uplinks.List {
			if l, ok := b.have.Kernel.LinkByIndex(u.Index); ok && UplinkIsBridge(&u) && !slices.Contains(spec.Hosts, l.MAC) {
				spec.Hosts = append(spec.Hosts, l.MAC)
			}
		}
		slices.Sort(spec.Hosts)
	}
	spec.Retired = b.retired(d)
	return spec
}

// routerGuard is what is to be refused of what guests hand to their bridge.
func (b *builder) routerGuard(d *Decision) GuardSpec {
	return GuardSpec{Network: d.Name, Bridge: d.Bridge, Retired: b.retired(d)}
}

// retired are the prefixes that guests may still hold addresses of, and that lead nowhere.
func (b *builder) retired(d *Decision) (list []netip.Prefix) {
	for _, p := range b.have.NDP.Taught[d.Name].Retired {
		current := slices.ContainsFunc(d.IPv6Prefixes, func(c netip.Prefix) bool { return c.Overlaps(p) })
		if p.Bits() >= shortestRetired && !current {
			list = append(list, p)
		}
	}
	return list
}

// shortestRetired is the shortest prefix whose addresses are refused on the next link: a shorter one is no
// link's, and a router that advertised it would cut guests off from wherever they go for two hours.
const shortestRetired = 48
