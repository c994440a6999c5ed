package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// unreachableMetric is worse than any real route's.
const unreachableMetric = 1 << 31

var anywhere = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// defaultBits is the longest prefix that counts as a default route: many VPNs leave the host's
// alone and lay 0.0.0.0/1 and 128.0.0.0/1 over it.
const defaultBits = 1

// planRouting gives guests a default route of their own: what comes in by a bridge looks up
// main without its default route, then a table of ours with the default route of the
// uplink that the network is bound to, then "unreachable". So guests can leave a dead
// uplink before the host does, be pinned, pass a VPN by, and never leave by what nobody chose.
func (b *builder) planRouting() {
	if b.have.BlindFirewall { // no way out is opened unless the filter is known to be in place
		return
	}
	var rules []vnet.Rule
	var routes []vnet.Route
	for _, d := range b.active() {
		if !d.routes4() {
			continue
		}
		rules = append(rules, rulesFor(d, []vnet.Rule{
			{Priority: PriorityMain, Table: mainTable, SuppressPrefixLength: defaultBits},
			{Priority: PriorityOwn, Table: d.table, SuppressPrefixLength: -1}}, b.have.Kernel.Rules)...)
		for _, r := range defaultRoutes(d) {
			if !slices.Contains(routes, r) {
				routes = append(routes, r)
			}
		}
	}
	b.planRoutes(phaseRoute, b.have.Kernel.Routes, routes)
	b.planRules(phaseRoute, b.have.Kernel.Rules, rules)
}

const mainTable = 254 // RT_TABLE_MAIN

// defaultBits6 is defaultBits for IPv6: 2000::/3 is all of the internet (RFC 4291 2.4), and what VPNs lay over the
// host's default route as well.
const defaultBits6 = 3

// rulesFor are the network's rules, given all of the family that there are: the steps of a look-up, with their usual
// priorities. Where guests go into a VPN with the host, its own rules may come before ours. Where they don't, they
// must not: and a rule that is added without a priority, as wg-quick's are, the kernel puts before all others but the first.
func rulesFor(d *Decision, steps, all []vnet.Rule) []vnet.Rule {
	first := firstForeign(all)
	early := (d.settings.Uplink != "auto" || d.settings.VPN == "bypass") && first <= PriorityMain && first > len(steps)
	for i := range steps {
		steps[i].IIF, steps[i].Protocol = d.Bridge, Protocol
		if early {
			steps[i].Priority = first - len(steps) + i
		}
	}
	return steps
}

// firstForeign is the lowest priority of a rule that is neither ours nor the kernel's first; the kernel's last if there
// is none.
func firstForeign(all []vnet.Rule) int {
	first := lastPriority
	for _, r := range all {
		if r.Priority > 0 && (r.Protocol != Protocol || r.Foreign) {
			first = min(first, r.Priority)
		}
	}
	return first
}

const lastPriority = 32766 // of the kernel's rule for the main table

// Metrics of our default routes: the bound uplink's, then the spare ones', each by one more.
const (
	boundMetric = 100
	spareMetric = 200
)

// defaultRoutes are the routes of a network's table: by the bound uplink; behind it, for the
// moment in which that one's route is taken away and we haven't noticed yet, by the other
// uplinks that the network could be bound to, as the host's own table has them; last, nowhere.
func defaultRoutes(d *Decision) []vnet.Route {
	routes := []vnet.Route{{Table: d.table, Dst: anywhere, Metric: unreachableMetric,
		Protocol: Protocol, Type: vnet.RouteUnreachable}}
	if d.Uplink == "" {
		return routes
	}
	routes = append(routes, defaultRoute(d.table, &d.bound, boundMetric))
	for i, u := range spares(d) {
		routes = append(routes, defaultRoute(d.table, &u, spareMetric+uint32(i)))
	}
	return routes
}

// spares returns the other uplinks that the network could be bound to, the best first. A
// network whose default route goes into a VPN has none: that would be a leak past it.
func spares(d *Decision) []vnet.Uplink {
	if d.bound.Kind == vnet.VPN {
		return nil
	}
	var list []vnet.Uplink
	for _, u := range d.outs {
		if u.Usable && u.Kind != vnet.VPN && u.Interface != d.Uplink {
			list = append(list, u)
		}
	}
	slices.SortStableFunc(list, func(a, b vnet.Uplink) int { return cmp.Compare(a.Metric4, b.Metric4) })
	return list
}

func defaultRoute(table uint32, u *vnet.Uplink, metric uint32) vnet.Route {
	via := vnet.Route{Table: table, Dst: anywhere, Gateway: u.Gateway4, Link: u.Index, Metric: metric,
		Protocol: Protocol, Type: vnet.RouteUnicast}
	if via.Gateway.IsValid() {
		// A router outside the uplink's prefixes (a host address with a /32, common in clouds
		// and on some hot spots) is reachable on the link nevertheless.
		via.OnLink = !slices.ContainsFunc(u.Addresses, func(p netip.Prefix) bool { return p.Contains(via.Gateway) })
	} else {
		via.Scope = 253 // RT_SCOPE_LINK: no next hop
	}
	return via
}

// planRoutes adds the routes that are wanted and deletes others of ours.
func (b *builder) planRoutes(phase int, there, want []vnet.Route) {
	var have []vnet.Route
	for _, r := range there {
		if r.Protocol == Protocol {
			have = append(have, r)
		}
	}
	byKey, wanted := map[routeKey][]vnet.Route{}, map[routeKey]bool{} // there may be thousands of guests
	for _, h := range have {
		byKey[keyOf(h)] = append(byKey[keyOf(h)], h)
	}
	for _, r := range want {
		wanted[keyOf(r)] = true
		if !slices.ContainsFunc(byKey[keyOf(r)], func(h vnet.Route) bool { return sameRoute(h, r) }) {
			l, _ := b.have.Kernel.LinkByIndex(r.Link)
			b.add(phase, ReplaceRoute{Route: r, LinkName: l.Name})
		}
	}
	// The spare ways go before the one in use, and what leads nowhere last.
	slices.SortStableFunc(have, func(a, b vnet.Route) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(b.Metric, a.Metric))
	})
	for _, h := range have {
		if !wanted[keyOf(h)] {
			b.add(phaseRemoveRoute, DeleteRoute{Route: h})
		}
	}
}

// routeKey is what tells one route from another that it would replace.
type routeKey struct {
	table, metric uint32
	dst           netip.Prefix
}

func keyOf(r vnet.Route) routeKey { return routeKey{r.Table, r.Metric, r.Dst} }

// sameRoute compares what we set; an unreachable route's link is the kernel's affair (lo).
func sameRoute(have, want vnet.Route) bool {
	if want.Type == vnet.RouteUnreachable {
		return have.Type == want.Type && have.Table == want.Table && have.Dst == want.Dst && have.Metric == want.Metric
	}
	have.Source = want.Source
	have.Scope = want.Scope
	return have == want
}

func (b *builder) planRules(phase int, have, want []vnet.Rule) {
	wanted, seen := map[vnet.Rule]bool{}, map[vnet.Rule]bool{}
	for _, r := range want {
		wanted[r] = true
	}
	for _, r := range have {
		if r.Protocol != Protocol || r.Foreign {
			continue
		}
		if !wanted[r] || seen[r] { // also what stands twice
			b.add(phaseRemoveRoute, DeleteRule{Rule: r})
		}
		seen[r] = true
	}
	for _, r := range want {
		if !seen[r] {
			b.add(phase, AddRule{Rule: r})
		}
	}
}
