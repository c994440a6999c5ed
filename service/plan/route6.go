package plan

import (
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

var anywhere6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)

// guestMetric is that of the routes to guests, one by one: before what the host may have of the same
// address by an uplink.
const guestMetric = 20

// planRouting6 gives guests a default route of their own, as planRouting does for IPv4, and routes what is for
// guests on a link that they share with the uplink, one address at a time, to their bridge. What comes in for somebody that
// isn't known goes there, too, where the kernel asks for him: a router may have a guest in mind that we don't, of a time
// before the laptop went and came back.
func (b *builder) planRouting6() {
	if b.have.BlindFirewall {
		return
	}
	var rules []vnet.Rule
	var routes []vnet.Route
	add := func(r vnet.Route) {
		key := func(o vnet.Route) bool { return o.Table == r.Table && o.Dst == r.Dst && o.Metric == r.Metric }
		if !slices.ContainsFunc(routes, key) { // of two networks that claim the same, the first has it
			routes = append(routes, r)
		}
	}
	taken, found := map[netip.Addr]bool{}, map[int]bool{}
	for _, d := range b.routed() {
		t := table(d.settings, &b.have.Kernel)
		steps := []vnet.Rule{
			{IPv6: true, Priority: PriorityMain, Table: mainTable, SuppressPrefixLength: defaultBits6},
			{IPv6: true, Priority: PriorityOwn, Table: t, SuppressPrefixLength: -1}}
		if d.router.proxy && b.elsewhere(d) {
			steps = slices.Concat([]vnet.Rule{
				{IPv6: true, Priority: PriorityGuests, Table: mainTable, SuppressPrefixLength: 127},
				{IPv6: true, Priority: PriorityLink, Table: t, SuppressPrefixLength: defaultBits6}}, steps)
			for _, p := range d.router.prefixes {
				add(vnet.Route{Table: t, Dst: p, Link: d.router.up.Index, Metric: boundMetric, Protocol: Protocol, Type: vnet.RouteUnicast})
			}
		}
		rules = append(rules, rulesFor(d, steps, b.have.Kernel.Rules6)...)
		add(vnet.Route{Table: t, Dst: anywhere6, Metric: unreachableMetric, Protocol: Protocol, Type: vnet.RouteUnreachable})
		if d.router.out {
			add(vnet.Route{Table: t, Dst: anywhere6, Gateway: d.router.gateway, Link: d.router.up.Index, Metric: boundMetric,
				Protocol: Protocol, Type: vnet.RouteUnicast})
		}
		own, exists := b.ours()[d.Name]
		if !d.router.learned() || !exists || own.Name != d.Bridge {
			continue
		}
		if up := d.router.up; !found[up.Index] { // of several networks on one uplink, the first
			found[up.Index] = true
			in := uint32(TableFound + up.Index)
			rules = append(rules,
				vnet.Rule{IPv6: true, Priority: PriorityKnown, IIF: up.Interface, Table: mainTable, SuppressPrefixLength: slaacBits, Protocol: Protocol},
				vnet.Rule{IPv6: true, Priority: PriorityFound, IIF: up.Interface, Table: in, SuppressPrefixLength: -1, Protocol: Protocol})
			for _, p := range d.router.prefixes {
				add(vnet.Route{Table: in, Dst: p, Link: own.Index, Metric: guestMetric, Protocol: Protocol, Type: vnet.RouteUnicast})
			}
		}
		for _, a := range b.guests(d) {
			if taken[a] {
				continue
			}
			taken[a] = true
			routes = append(routes, vnet.Route{Table: mainTable, Dst: netip.PrefixFrom(a, 128), Link: own.Index, Metric: guestMetric,
				Protocol: Protocol, Type: vnet.RouteUnicast})
		}
	}
	b.planRoutes(phaseRoute6, b.have.Kernel.Routes6, routes)
	b.planRules(phaseRoute6, b.have.Kernel.Rules6, rules)
}

// elsewhere tells whether the host has the link that guests share by another interface as well, as at a dock in the same
// LAN as the Wi-Fi: then its own route there may be the wrong one for them, and lead into a cable that was pulled for as long as
// the host goes on using it.
func (b *builder) elsewhere(d *Decision) bool {
	return slices.ContainsFunc(b.have.Kernel.Routes6, func(r vnet.Route) bool {
		return r.Protocol != Protocol && r.Table == mainTable && r.Type == vnet.RouteUnicast && r.Link != d.router.up.Index &&
			!r.Gateway.IsValid() && slices.Contains(d.router.prefixes, r.Dst)
	})
}

// planProxies has the kernel answer for guests on the uplinks whose link they share.
func (b *builder) planProxies() {
	want := map[vnet.Proxy]string{} // to the link's name
	var order []vnet.Proxy
	for _, d := range b.routed() {
		if !d.router.proxy || b.have.BlindFirewall {
			continue
		}
		for _, a := range b.guests(d) {
			p := vnet.Proxy{Address: a, Link: d.router.up.Index, Protocol: Protocol}
			if want[p] == "" {
				order = append(order, p)
			}
			want[p] = d.router.up.Interface
		}
	}
	have := map[vnet.Proxy]bool{}
	for _, p := range b.have.Kernel.Proxies {
		if p.Protocol != Protocol { // somebody else's serves as well
			p.Protocol = Protocol
			have[p] = true
			continue
		}
		have[p] = true
		if l, there := b.have.Kernel.LinkByIndex(p.Link); want[p] == "" && there {
			b.add(phaseSysctl6, DeleteProxy{Link: l.Name, Address: p.Address})
		}
	}
	for _, p := range order {
		if !have[p] {
			b.add(phaseRoute6, AddProxy{Link: want[p], Address: p.Address})
		}
	}
}

// planAddress6 gives the bridge an address of the prefix that is its own link, and takes others away.
func (b *builder) planAddress6() {
	links := b.ours()
	for _, d := range b.active() {
		var want netip.Prefix
		if d.router != nil && d.router.onLink {
			p := d.router.prefixes[0]
			want = netip.PrefixFrom(p.Addr().Next(), p.Bits())
		}
		l, exists := links[d.Name]
		exists = exists && l.Name == d.Bridge
		if d.router != nil && exists && l.Carrier && !slices.ContainsFunc(b.have.Kernel.Addresses, func(a vnet.Address) bool {
			return a.Link == l.Index && a.Prefix.Addr() == d.router.address
		}) { // somebody deleted what guests know their router by
			b.add(phaseBridge, AddAddress{Link: d.Bridge, Prefix: netip.PrefixFrom(d.router.address, slaacBits)})
		}
		there := false
		for _, a := range b.have.Kernel.Addresses {
			if !exists || a.Link != l.Index || !isGlobal6(a.Prefix.Addr()) {
				continue
			}
			if a.Prefix == want {
				there = true
				continue
			}
			b.add(phaseRemoveBridge, DeleteAddress{Link: l.Name, Prefix: a.Prefix})
		}
		if want.IsValid() && !there {
			b.add(phaseBridge, AddAddress{Link: d.Bridge, Prefix: want})
		}
	}
}
