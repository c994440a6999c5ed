package plan

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

var noPrefix netip.Prefix

// habits are the ranges that others take without asking: a fresh choice avoids them, also
// where those programs aren't installed yet.
var habits = []vnet.Reservation{
	{Prefix: netip.MustParsePrefix("172.16.0.0/12"), Owner: "Docker's default range"},
	{Prefix: netip.MustParsePrefix("192.168.122.0/24"), Owner: "libvirt's default network"},
	{Prefix: netip.MustParsePrefix("192.168.123.0/24"), Owner: "libvirt's second network by habit"},
	{Prefix: netip.MustParsePrefix("10.88.0.0/16"), Owner: "Podman's default network"},
	{Prefix: netip.MustParsePrefix("10.89.0.0/16"), Owner: "Podman's further networks"},
	{Prefix: netip.MustParsePrefix("100.64.0.0/10"), Owner: "carrier-grade NAT and Tailscale (RFC 6598)"},
	{Prefix: netip.MustParsePrefix("10.42.0.0/15"), Owner: "Kubernetes' k3s and NetworkManager's shared connections"},
	{Prefix: netip.MustParsePrefix("10.96.0.0/12"), Owner: "Kubernetes' services"},
	{Prefix: netip.MustParsePrefix("10.244.0.0/16"), Owner: "Kubernetes' pods"},
	{Prefix: netip.MustParsePrefix("192.168.178.0/24"), Owner: "home routers by habit"},
	{Prefix: netip.MustParsePrefix("192.168.49.0/24"), Owner: "Wi-Fi Direct and minikube by habit"},
}

// clash returns the first reservation that p overlaps, by containment either way.
func clash(p netip.Prefix, taken []vnet.Reservation) (vnet.Reservation, bool) {
	for _, r := range taken {
		if p.Overlaps(r.Prefix) {
			return r, true
		}
	}
	return vnet.Reservation{}, false
}

// InUse lists what the host itself uses now: addresses and routes that aren't ours, in any
// table, the uplinks' next hops and their DNS servers. A guest subnet that overlaps one of
// these cuts the host off.
func InUse(have *vnet.Observed) []vnet.Reservation {
	ours := map[int]bool{}
	names := map[int]string{}
	for _, l := range have.Kernel.Links {
		names[l.Index] = l.Name
		if _, ok := OwnerOf(l); ok {
			ours[l.Index] = true
		}
	}
	var list []vnet.Reservation
	add := func(p netip.Prefix, format string, args ...any) {
		if p.IsValid() && p.Addr().Is4() && p.Bits() > 1 && !p.Addr().IsLoopback() && !p.Addr().IsMulticast() && !p.Addr().IsLinkLocalUnicast() {
			list = append(list, vnet.Reservation{Prefix: p.Masked(), Owner: fmt.Sprintf(format, args...)})
		}
	}
	for _, a := range have.Kernel.Addresses {
		if !ours[a.Link] {
			add(a.Prefix, "the address %s of %s", a.Prefix, names[a.Link])
			add(a.Peer, "the peer %s of %s", a.Peer, names[a.Link])
		}
	}
	for _, r := range have.Kernel.Routes {
		if !ours[r.Link] && r.Protocol != Protocol {
			add(r.Dst, "the route to %s by %s", r.Dst, names[r.Link])
		}
	}
	host := func(a netip.Addr) netip.Prefix {
		if !a.IsValid() {
			return noPrefix
		}
		return netip.PrefixFrom(a.WithZone(""), a.BitLen())
	}
	for _, u := range have.Uplinks.List {
		add(host(u.Gateway4), "the router %s of %s", u.Gateway4, u.Interface)
		for _, ns := range u.Nameservers {
			add(host(ns), "the DNS server %s of %s", ns, u.Interface)
		}
	}
	for _, up := range have.Uplinks.Upstreams {
		add(host(up.Address), "the DNS server %s of %s", up.Address, up.Interface)
	}
	return list
}

// decideSubnets gives each active network with IPv4 its subnet: the fixed one, else the
// remembered one, else a fresh choice; and another one, or none, where that clashes.
func (b *builder) decideSubnets() {
	inUse := InUse(&b.have)
	var given []vnet.Reservation // to networks in this pass
	for i, w := range b.want.Networks {
		d := &b.decisions[i]
		if !d.Active || d.settings.IPv4Method == "off" {
			continue
		}
		subnet, why := b.chooseSubnet(w, append(slices.Clone(inUse), given...))
		if !subnet.IsValid() {
			d.degrade("it has no IPv4: %s", why)
			d.IPv4Reason = why
			continue
		}
		if why != "" {
			d.degrade("%s", why)
		}
		d.Subnet = subnet
		d.Address = netip.PrefixFrom(vnet.Gateway(subnet), subnet.Bits())
		given = append(given, vnet.Reservation{Prefix: subnet, Owner: "network " + w.Name})
	}
}

// chooseSubnet returns a subnet and, when something about it isn't as asked, why.
func (b *builder) chooseSubnet(w WantedNetwork, inUse []vnet.Reservation) (subnet netip.Prefix, why string) {
	asked := w.Settings.IPv4Subnet
	fixed := asked.IsValid()
	if !fixed {
		asked = w.Remembered
	}
	if !asked.IsValid() {
		if fresh, ok := b.freshSubnet(w.Name, 24, inUse); ok {
			return fresh, ""
		}
		return noPrefix, "no private /24 is free"
	}
	taken, clashes := clash(asked, inUse)
	if !clashes {
		return asked, ""
	}
	sides := fmt.Sprintf("its subnet %s clashes with %s", asked, taken.Owner)
	if w.Settings.OnClash == "report" {
		return noPrefix, sides
	}
	bits := max(asked.Bits(), 16)
	fresh, ok := b.freshSubnet(w.Name, bits, inUse)
	if now := b.subnetNow(w.Name); fixed && now.IsValid() && now.Bits() == bits {
		// What it uses meanwhile isn't remembered; it doesn't move on just because
		// something better came free.
		if _, taken := clash(now, inUse); !taken {
			fresh, ok = now, true
		}
	}
	switch {
	case !ok:
		return noPrefix, sides + " and no private subnet of that size is free"
	case fixed:
		return fresh, sides + "; it uses " + fresh.String() + " meanwhile"
	}
	return fresh, ""
}

// subnetNow returns the subnet that the network's bridge has, the zero Prefix if none.
func (b *builder) subnetNow(network string) netip.Prefix {
	l, exists := b.ours()[network]
	for _, a := range b.have.Kernel.Addresses {
		if exists && a.Link == l.Index && a.Prefix.Addr().Is4() {
			return a.Prefix.Masked()
		}
	}
	return noPrefix
}

// freshSubnet chooses a subnet of the length that clashes with nothing known, not even
// with what may come: profiles, habits, what uplinks used before, other networks' memory.
// It is the same for the same name as long as the surroundings are.
func (b *builder) freshSubnet(name string, bits int, inUse []vnet.Reservation) (netip.Prefix, bool) {
	var expected, ever []vnet.Reservation
	expected = append(expected, inUse...)
	expected = append(expected, b.have.Uplinks.Reserved...)
	for _, other := range b.want.Networks {
		if other.Name == name {
			continue
		}
		for _, p := range []netip.Prefix{other.Remembered, other.Settings.IPv4Subnet} {
			if p.IsValid() {
				expected = append(expected, vnet.Reservation{Prefix: p, Owner: "network " + other.Name})
			}
		}
	}
	expected = append(expected, habits...)
	for _, p := range b.want.UplinkPrefixes {
		ever = append(ever, vnet.Reservation{Prefix: p, Owner: "an uplink once"})
	}
	// A well-travelled laptop may have seen everything: what once was is the first to
	// be given up, then what may come; never what is.
	for _, avoid := range [][]vnet.Reservation{append(slices.Clone(expected), ever...), expected, inUse} {
		for _, p := range candidates(name, bits) {
			if _, taken := clash(p, avoid); !taken {
				return p, true
			}
		}
	}
	return noPrefix, false
}

// candidates lists subnets in the order of preference: 192.168.128.0/17, where few LANs
// are, then 10.0.0.0/8, each begun at a place that depends on the name, so that networks
// don't all want the same.
func candidates(name string, bits int) []netip.Prefix {
	h := fnv.New32a()
	h.Write([]byte(name))
	start := h.Sum32()
	if name == "default" {
		start = 231 - 128 // what the documentation shows
	}
	var list []netip.Prefix
	if bits >= 24 {
		for i := uint32(0); i < 128; i++ {
			third := byte(128 + (start+i)%128)
			list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, third, 0}), bits))
		}
	}
	size := uint32(1) << (32 - bits)
	const count = 4096
	room := uint32(1<<24) / size
	for i := uint32(0); i < min(count, room); i++ {
		// A large odd step visits all places, far from each other.
		n := (start + i*40503) % room
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|n*size)
		list = append(list, netip.PrefixFrom(netip.AddrFrom4(a), bits))
	}
	return list
}

// planMemory remembers choices, so that the same network keeps its subnet, and where the
// laptop has been.
func (b *builder) planMemory() {
	for i, w := range b.want.Networks {
		d := &b.decisions[i]
		if d.Active && d.Subnet.IsValid() && !w.Settings.IPv4Subnet.IsValid() && d.Subnet != w.Remembered {
			b.add(phaseMemory, RememberSubnet{Network: w.Name, Subnet: d.Subnet})
		}
	}
	for _, u := range b.have.Uplinks.List {
		for _, p := range u.Addresses {
			if p = p.Masked(); p.Addr().Is4() && p.Bits() > 1 && !p.Addr().IsLinkLocalUnicast() &&
				!slices.Contains(b.want.UplinkPrefixes, p) {
				// Nothing waits for this, and it is a write to disk.
				b.add(phaseRecord, RememberUplinkPrefix{Prefix: p})
				b.want.UplinkPrefixes = append(slices.Clone(b.want.UplinkPrefixes), p)
			}
		}
	}
}

// planClashes takes the bridge's address away where it clashes, before anything else: the
// host doesn't answer ARP for, nor routes to, a LAN that it believes behind its bridge.
func (b *builder) planClashes() {
	links := b.ours()
	for i := range b.decisions {
		d := &b.decisions[i]
		l, exists := links[d.Name]
		if !d.Active || !exists || l.Name != d.Bridge {
			continue
		}
		for _, a := range b.have.Kernel.Addresses {
			if a.Link != l.Index || !a.Prefix.Addr().Is4() || a.Prefix == d.Address {
				continue
			}
			b.add(phaseClash, DeleteAddress{Link: l.Name, Prefix: a.Prefix})
			if d.Subnet.IsValid() && d.Renumbered == nil {
				d.Renumbered = &vnet.Renumbered{Old: a.Prefix.Masked(), New: d.Subnet}
			}
		}
	}
}
