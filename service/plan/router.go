package plan

import (
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// router is what a network's bridge is to be as the router of its guests.
type router struct {
	up       vnet.Uplink
	prefixes []netip.Prefix // that guests have addresses of
	// proxy: guests are neighbours on the uplink's link. onLink: the prefix is the bridge's own. If neither, the
	// prefix is a point-to-point uplink's.
	proxy, onLink bool
	// nat: guests' addresses are translated; waiting: there is none yet to translate them to.
	nat, waiting bool
	// address is the bridge's link-local one.
	address netip.Addr
	mac     string
	// gateway is the next hop, zero where there is none to name; out tells whether there is a way out at all.
	gateway netip.Addr
	out     bool
}

func (b *builder) routerOf(d *Decision, up *vnet.Uplink, w way6) *router {
	mac := vnet.BridgeMAC(b.want.Seed, d.Name)
	r := &router{up: *up, prefixes: d.IPv6Prefixes, address: vnet.LinkLocal(mac), mac: mac.String(),
		nat: w.method == "nat66", waiting: w.waiting, onLink: w.method == "nat66" || w.method == "routed"}
	r.proxy = w.method == "proxy" && !isPointToPoint(up)
	r.gateway, r.out = b.gateway6(d, up)
	return r
}

// learned tells whether guests' addresses are routed to the bridge one by one.
func (r *router) learned() bool { return !r.onLink }

// leaves tells whether packets from the guests may leave by the uplink now.
func (r *router) leaves() bool { return r.out && !r.waiting }

// self is the router as guests know it.
func (r *router) self() vnet.Router {
	return vnet.Router{Address: r.address, MAC: r.mac, Default: r.out, Prefixes: r.prefixes}
}

// isBridge tells whether a router that guests were told of is the network's own bridge.
func (b *builder) isBridge(d *Decision, r vnet.Router) bool {
	mac := vnet.BridgeMAC(b.want.Seed, d.Name)
	return r.MAC == mac.String() && r.Address == vnet.LinkLocal(mac)
}

// gateway6 is where packets go that leave by the uplink: to the most preferred of its default routers
// (RFC 4191 3.2), the host's own if there are several; else where the host's go. The zero Addr stands for a
// point-to-point link, ok is false when nothing leads out. A new process that has heard nobody
// yet leaves the route that is there.
func (b *builder) gateway6(d *Decision, u *vnet.Uplink) (gateway netip.Addr, ok bool) {
	best := -2
	for _, r := range b.have.NDP.Advertised[u.Interface].Routers { // sorted by address
		host := r.Address == u.Gateway6 && r.Preference == best
		if r.Default && (r.Preference > best || host) {
			gateway, best = r.Address, r.Preference
		}
	}
	if best > -2 {
		return gateway, true
	}
	if !b.settled(u) {
		if own, exists := b.ours()[d.Name]; exists {
			if r, standing := b.standing6(d, own.Name, u); standing {
				return r.Gateway, true
			}
		}
	}
	return u.Gateway6, u.Default6
}

// standing6 returns the default route by which the guests' IPv6 leaves by the uplink, as the kernel has it.
func (b *builder) standing6(d *Decision, bridge string, u *vnet.Uplink) (vnet.Route, bool) {
	for _, rule := range b.have.Kernel.Rules6 {
		if rule.Protocol != Protocol || rule.IIF != bridge || rule.SuppressPrefixLength >= 0 {
			continue
		}
		for _, r := range b.have.Kernel.Routes6 {
			if r.Protocol == Protocol && r.Table == rule.Table && r.Dst == anywhere6 && r.Type == vnet.RouteUnicast && r.Link == u.Index {
				return r, true
			}
		}
	}
	return vnet.Route{}, false
}

// routed returns the networks whose bridge is their guests' router.
func (b *builder) routed() []*Decision {
	var list []*Decision
	for _, d := range b.active() {
		if d.router != nil {
			list = append(list, d)
		}
	}
	return list
}

// planServing has the bridges advertise themselves. Where they only just began to, or by another uplink than
// before, guests are told at once.
func (b *builder) planServing() {
	serving := b.have.NDP.Serving
	wanted := map[string]bool{}
	for _, d := range b.routed() {
		own, exists := b.ours()[d.Name]
		if !exists || own.Name != d.Bridge {
			continue // the bridge comes first
		}
		wanted[d.Name] = true
		spec := b.serveSpec(d)
		s, already := serving[d.Name]
		if s.Digest != spec.Digest() {
			b.add(phaseTeach, Serve{Spec: spec})
		}
		moved := !already || s.Uplink != d.router.up.Interface
		changed := b.changed(phaseTeach, func(op Op) bool { t, ok := op.(Teach); return ok && t.Network == d.Name }) ||
			b.changed(phaseAnnounce, func(op Op) bool { w, ok := op.(Withdraw); return ok && w.Network == d.Name })
		if moved || changed || b.have.First {
			b.add(phaseAnnounce, Announce{Network: d.Name, Bridge: d.Bridge, Uplink: d.router.up.Interface})
		}
	}
	for _, network := range sortedKeys(serving) {
		if !wanted[network] {
			b.add(phaseGate, StopServing{Network: network})
		}
	}
}

func (b *builder) serveSpec(d *Decision) ServeSpec {
	r := d.router
	spec := ServeSpec{Network: d.Name, Bridge: d.Bridge, Address: r.address, MAC: r.mac, Uplink: r.up.Interface,
		Proxy: r.proxy, OnLink: r.onLink, Default: r.out, MTU: min(r.up.MTU, bridgeMTU(d))}
	if !r.proxy {
		spec.Prefixes = r.prefixes
	}
	if r.learned() {
		spec.Host = b.hostAddresses(r)
	}
	return spec
}

// hostAddresses are the host's own in the guests' prefixes, whichever link has them, also those whose
// duplicate address detection isn't over.
func (b *builder) hostAddresses(r *router) []netip.Addr {
	var list []netip.Addr
	for _, a := range b.have.Kernel.Addresses {
		addr := a.Prefix.Addr()
		inside := slices.ContainsFunc(r.prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
		if (inside || a.Link == r.up.Index && isGlobal6(addr)) && !slices.Contains(list, addr) {
			list = append(list, addr)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// guests are the addresses that are routed to the network's bridge one by one.
func (b *builder) guests(d *Decision) []netip.Addr {
	host := b.hostAddresses(d.router)
	var list []netip.Addr
	for _, n := range b.have.NDP.Neighbours[d.Name] {
		inside := slices.ContainsFunc(d.router.prefixes, func(p netip.Prefix) bool { return p.Contains(n.Address) })
		if _, isHost := slices.BinarySearchFunc(host, n.Address, netip.Addr.Compare); inside && !isHost {
			list = append(list, n.Address)
		}
	}
	return list
}
