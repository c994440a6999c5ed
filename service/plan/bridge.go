package plan

import (
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// defaultMTU is Ethernet's (RFC 894).
const defaultMTU = 1500

// planBridges makes bridges and their addresses, and removes those that no network that is to
// run has: of stopped and deleted networks, by a former name, half made.
func (b *builder) planBridges() {
	links := b.ours()
	_, ipv6 := b.have.Kernel.Sysctls[disableIPv6("all")]
	keep := map[int]bool{}
	for _, d := range b.active() {
		l, exists := links[d.Name]
		exists = exists && l.Name == d.Bridge
		want := CreateBridge{Name: d.Bridge, MAC: b.mac(d.Name), Alias: AliasPrefix + d.Name, MTU: bridgeMTU(d), Group: group(d)}
		if !exists {
			b.add(phaseBridge, want)
			if ipv6 {
				b.add(phaseBridge, SetSysctl{Key: disableIPv6(d.Bridge), Value: ipv6Off(d)})
			}
			if half, found := b.have.Kernel.LinkByName(d.Bridge); found {
				keep[half.Index] = true
			}
		} else {
			keep[l.Index] = true
			b.mendBridge(want, l)
		}
		b.planAddress(d, l, exists)
		if !exists || !l.Up {
			b.add(phaseBridge, SetLinkUp{Name: d.Bridge})
		}
	}
	for _, l := range b.have.Kernel.Links {
		if _, ours := OwnerOf(l); (ours || halfMade(l)) && !keep[l.Index] {
			b.freePorts(l)
			b.add(phaseRemoveBridge, DeleteBridge{Name: l.Name, Alias: l.Alias})
		}
	}
}

// freePorts has the ports of a bridge that is to go be as they were before they were attached.
func (b *builder) freePorts(bridge vnet.Link) {
	for _, w := range b.want.Networks {
		for _, p := range w.Ports {
			if l, there := b.have.Kernel.LinkByIndex(p.Index); there && l.Name == p.Interface && l.Master == bridge.Index && !p.Up {
				b.add(phaseRemoveBridge, RemovePort{Bridge: bridge.Name, Interface: p.Interface, Down: true})
			}
		}
	}
}

// mendBridge puts right what somebody changed on a bridge of ours.
func (b *builder) mendBridge(want CreateBridge, l vnet.Link) {
	if l.MAC != want.MAC {
		b.add(phaseBridge, SetMAC{Name: want.Name, MAC: want.MAC})
	}
	if l.MTU != want.MTU {
		b.add(phaseBridge, SetMTU{Name: want.Name, MTU: want.MTU})
	}
	if l.Group != want.Group {
		b.add(phaseBridge, SetGroup{Name: want.Name, Group: want.Group})
	}
	if l.MulticastSnooping {
		b.add(phaseBridge, SetMulticastSnooping{Name: want.Name, On: false})
	}
}

// planAddress adds the bridge's address; others were dealt with by planClashes.
func (b *builder) planAddress(d *Decision, l vnet.Link, exists bool) {
	if !d.Address.IsValid() {
		return
	}
	if exists && slices.ContainsFunc(b.have.Kernel.Addresses, func(a vnet.Address) bool {
		return a.Link == l.Index && a.Prefix == d.Address
	}) {
		return
	}
	b.add(phaseBridge, AddAddress{Link: d.Bridge, Prefix: d.Address})
}

// bridgeMTU is the settings', else the uplink's where that is smaller than Ethernet's.
func bridgeMTU(d *Decision) int {
	switch {
	case d.settings.MTU != 0:
		return int(d.settings.MTU)
	case d.Uplink != "" && d.bound.MTU >= 1280:
		return min(d.bound.MTU, defaultMTU)
	}
	return defaultMTU
}

func group(d *Decision) uint32 {
	if d.settings.HostAccess == "services" {
		return GroupBridge | GroupServices
	}
	return GroupBridge
}

// planPorts attaches what was asked to be a port, and sets what differs on ports.
func (b *builder) planPorts() {
	links := b.ours()
	for i, w := range b.want.Networks {
		d := &b.decisions[i]
		if !d.Active {
			continue
		}
		bridge, exists := links[d.Name]
		exists = exists && bridge.Name == d.Bridge
		for _, p := range w.Ports {
			d.ports = append(d.ports, p.Interface)
			l, there := b.have.Kernel.LinkByIndex(p.Index)
			if !there || l.Name != p.Interface {
				continue
			}
			if l.Master == 0 { // one that is elsewhere was moved there, or is free when that bridge is gone
				b.add(phasePort, AddPort{Bridge: d.Bridge, Interface: p.Interface, Index: p.Index, Isolated: d.settings.IsolatePorts})
			}
		}
		if !exists {
			continue
		}
		for _, l := range b.have.Kernel.Links {
			if l.Master != bridge.Index || isPairEnd(l) {
				continue
			}
			d.ports = append(d.ports, l.Name)
			if l.Isolated != d.settings.IsolatePorts {
				b.add(phasePort, IsolatePort{Interface: l.Name, On: d.settings.IsolatePorts})
			}
			switch {
			case b.asksAgain(d):
				b.add(phasePort, BouncePort{Interface: l.Name})
			case !l.Up && slices.ContainsFunc(w.Ports, func(p vnet.PortRef) bool { return p.Index == l.Index }):
				b.add(phasePort, SetLinkUp{Name: l.Name}) // killed in the middle of a bounce
			}
		}
	}
}

// asksAgain tells whether the network's guests hold addresses of another subnet: it is being
// renumbered, or the process that renumbered it may not have come to tell the guests.
func (b *builder) asksAgain(d *Decision) bool {
	if d.Renumbered != nil {
		return true
	}
	return b.have.First && slices.ContainsFunc(b.have.Leases[d.Name], func(l vnet.Lease) bool {
		return d.Subnet.IsValid() && !d.Subnet.Contains(l.Address)
	})
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// subnetsOf returns the subnets of the networks whose guests' IPv4 is forwarded.
func subnetsOf(list []*Decision) []netip.Prefix {
	var subnets []netip.Prefix
	for _, d := range list {
		if d.routes4() {
			subnets = append(subnets, d.Subnet)
		}
	}
	return subnets
}
