package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// decideIPv6 settles how a network's guests get IPv6: from the link itself where the uplink is a bridge
// that they may be bridged to, by their own bridge as a router where it isn't, else among themselves only.
func (b *builder) decideIPv6(d *Decision) {
	switch d.settings.IPv6Method {
	case "off":
		d.IPv6State, d.IPv6Reason = "off", "IPv6 is off by the network's settings"
		return
	case "link-local":
		d.IPv6State, d.IPv6Reason = "link-local", "guests reach each other and the host by link-local addresses, by the network's settings"
		return
	}
	up, why := b.bind6(d)
	if up == nil {
		d.IPv6State, d.IPv6Reason = "link-local", why
		return
	}
	w := b.way6(d.settings, d, up)
	d.IPv6State, d.IPv6Reason = w.method, w.reason
	bridging := w.method == "bridge" || w.method == "link-local"
	if bridging && UplinkIsBridge(up) && Sharing(b.want, up) != "never" && (d.settings.IPv6Method == "auto" || d.settings.IPv6Method == "bridge") {
		d.uplink6 = up // also when nobody is heard there yet: it is the way
	}
	if w.method == "link-local" {
		return
	}
	if why != "" {
		d.IPv6Reason += "; " + why
	}
	d.IPv6Prefixes = slices.Clone(w.prefixes)
	slices.SortFunc(d.IPv6Prefixes, comparePrefixes)
	if w.method != "bridge" {
		d.router = b.routerOf(d, up, w)
	}
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// bind6 chooses the uplink for a network's IPv6: the same as for IPv4, for two families that go by two
// uplinks are two networks to a guest. A VPN that carries the host's default route of either family
// carries both or none: what goes past it in the other one is a leak. Only where there is no IPv4 at all, it is the
// uplink that the host's own IPv6 goes by. And since what a guest is told can't be taken back for nothing, an uplink
// is kept that works while the routers of the next are still listened for, and one that lost its carrier a moment ago,
// with no other to go to.
func (b *builder) bind6(d *Decision) (up *vnet.Uplink, why string) {
	ups := &b.have.Uplinks
	if tunnel, ok := tunnel(ups); ok && d.settings.Uplink == "auto" && d.settings.VPN != "bypass" {
		if d.settings.VPN == "block" {
			return nil, "the VPN on " + tunnel.Interface + " carries the default route and the network is set to block then"
		}
		if l, there := b.have.Kernel.LinkByIndex(tunnel.Index); !there || !l.Up || !l.Carrier {
			return nil, "the VPN on " + tunnel.Interface + " carries the default route and is down"
		}
		return &tunnel, "the VPN on " + tunnel.Interface + " carries the default route"
	}
	up, why = bind(d.settings, ups)
	if up != nil && d.settings.Uplink == "auto" {
		if u, until := b.stay6(d, up); u != nil {
			return u, until
		}
	}
	if up != nil || d.settings.Uplink == "none" {
		return up, why
	}
	for i := range ups.List {
		u := &ups.List[i]
		if l, ok := b.have.Kernel.LinkByIndex(u.Index); ok && l.Up && u.LostCarrier && b.allowed(d, u) && b.wasOn(d, u) {
			return u, "its carrier was lost a moment ago"
		}
	}
	for i := range ups.List {
		u := &ups.List[i]
		candidate := u.Interface == d.settings.Uplink || d.settings.Uplink == "auto" && u.Interface == ups.Primary6
		if l, ok := b.have.Kernel.LinkByIndex(u.Index); candidate && ok && l.Up && l.Carrier && !hasIPv4(*u) && b.allowed(d, u) {
			return u, "it has no IPv4"
		}
	}
	return nil, why
}

// stay6 returns the uplink that guests' IPv6 is on, if that works, while it isn't known yet what there is on the next, or
// while the host has no address there yet that guests' are to be translated to.
func (b *builder) stay6(d *Decision, next *vnet.Uplink) (up *vnet.Uplink, until string) {
	switch {
	case !b.settled(next) && len(b.have.NDP.Advertised[next.Interface].Routers) == 0:
		until = "until the routers of " + next.Interface + " were listened for"
	case b.way6(d.settings, d, next).waiting:
		until = "until " + next.Interface + " has a usable address"
	default:
		return nil, ""
	}
	for i := range b.have.Uplinks.List {
		u := &b.have.Uplinks.List[i]
		if u.Usable && u.Index != next.Index && b.allowed(d, u) && b.wasOn(d, u) && b.way6(d.settings, d, u).method != "link-local" {
			return u, until
		}
	}
	return nil, ""
}

// tunnel returns the VPN that carries the host's default route of either family.
func tunnel(ups *vnet.Uplinks) (vnet.Uplink, bool) {
	for _, name := range []string{ups.Primary, ups.Primary6} {
		if u, ok := ups.Find(name); ok && u.Kind == vnet.VPN {
			return u, true
		}
	}
	return vnet.Uplink{}, false
}

// wasOn tells whether guests' IPv6 is on the uplink as the machine is now.
func (b *builder) wasOn(d *Decision, u *vnet.Uplink) bool {
	if outer, ok := b.outer(d.Name); ok && outer.Master != 0 {
		return outer.Master == u.Index
	}
	own, exists := b.ours()[d.Name]
	if !exists {
		return false
	}
	_, routed := b.standing6(d, own.Name, u)
	return routed
}

// allowed tells whether the network's settings let guests out by the uplink at all.
func (b *builder) allowed(d *Decision, u *vnet.Uplink) bool {
	if d.settings.Uplink != "auto" {
		return u.Interface == d.settings.Uplink
	}
	_, tunnelled := tunnel(&b.have.Uplinks)
	return u.Kind != vnet.VPN && (!tunnelled || d.settings.VPN == "bypass")
}

// UplinkIsBridge tells whether guests can be bridged to the uplink as it is.
func UplinkIsBridge(u *vnet.Uplink) bool { return u.Kind == vnet.BridgeKind }

// Sharing returns the uplink's mode of sharing: auto, bridge or never.
func Sharing(want Want, u *vnet.Uplink) string {
	if u.SharedFrom != "" || u.Bridge != "" {
		return "bridge"
	}
	if u.ConnectionUUID != "" && slices.Contains(want.NeverShared, u.ConnectionUUID) {
		return "never"
	}
	return "auto"
}

// Method6 returns the best method on the uplink for a network with ipv6-method=auto, and in one sentence
// why it is that.
func Method6(want Want, have *vnet.Observed, u *vnet.Uplink) (method, reason string) {
	b := &builder{want: want, have: *have}
	w := b.way6(vnet.DefaultSettings(""), nil, u)
	return w.method, w.reason
}
