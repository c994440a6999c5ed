package plan

import (
	"fmt"
	"slices"

	"gangway/service/vnet"
)

// bind chooses the uplink that a network's default route goes to. Without one, or where
// the choice needs explaining, reason is a sentence for a person.
func bind(s vnet.Settings, ups *vnet.Uplinks) (up *vnet.Uplink, reason string) {
	switch s.Uplink {
	case "none":
		return nil, "the network is set to have no uplink"
	case "auto":
		return bindAuto(s.VPN, ups)
	}
	pinned, ok := ups.Find(s.Uplink)
	switch {
	case !ok:
		return nil, fmt.Sprintf("the network is pinned to %s, which is not there", s.Uplink)
	case !pinned.Usable:
		return nil, fmt.Sprintf("the network is pinned to %s, which is not usable: %s", s.Uplink, pinned.Reason)
	}
	return &pinned, "pinned to " + s.Uplink
}

// uplinksFor returns the uplinks as a network of the IPv4 method may use them: one that is never shared
// is none for guests whose own addresses would appear there. Translated, they don't.
func (b *builder) uplinksFor(method string) *vnet.Uplinks {
	if method != "routed" || len(b.want.NeverShared) == 0 {
		return &b.have.Uplinks
	}
	ups := b.have.Uplinks
	ups.List = slices.Clone(ups.List)
	for i := range ups.List {
		if u := &ups.List[i]; Sharing(b.want, u) == "never" {
			u.Usable, u.Reason, u.Addresses = false, "it is set never to be shared", nil
		}
	}
	return &ups
}

// bindAuto follows the host's default route, but leaves a dead uplink before the host does.
func bindAuto(vpn string, ups *vnet.Uplinks) (*vnet.Uplink, string) {
	primary, havePrimary := ups.Find(ups.Primary)
	vpnUplink, tunnelled := tunnel(ups)
	if tunnelled {
		switch vpn {
		case "follow":
			if vpnUplink.Usable {
				return &vpnUplink, "the VPN on " + vpnUplink.Interface + " carries the default route"
			}
			// No other way: that would be a leak past the tunnel.
			return nil, fmt.Sprintf("the VPN on %s carries the default route and is not usable: %s", vpnUplink.Interface, vpnUplink.Reason)
		case "block":
			return nil, fmt.Sprintf("the VPN on %s carries the default route and the network is set to block then", vpnUplink.Interface)
		}
		if primary.Kind == vnet.VPN {
			primary, havePrimary = ups.Find(ups.Physical)
		}
	}
	if havePrimary && primary.Usable && primary.Kind != vnet.VPN {
		if tunnelled {
			return &primary, "past the VPN, by the network's settings"
		}
		return &primary, ""
	}
	best := bestPhysical(ups)
	switch {
	case best != nil && havePrimary && primary.Kind != vnet.VPN:
		return best, fmt.Sprintf("%s, the host's uplink, is not usable: %s", primary.Interface, primary.Reason)
	case best != nil:
		return best, ""
	case havePrimary && primary.Kind != vnet.VPN:
		return nil, fmt.Sprintf("the only uplink %s is not usable: %s", primary.Interface, primary.Reason)
	}
	return nil, "the host is offline"
}

// bestPhysical returns the usable uplink with the lowest metric that is no VPN.
func bestPhysical(ups *vnet.Uplinks) *vnet.Uplink {
	var best *vnet.Uplink
	for i := range ups.List { // sorted by name: equal metrics have a stable winner
		u := &ups.List[i]
		if u.Usable && u.Kind != vnet.VPN && (best == nil || u.Metric4 < best.Metric4) {
			best = u
		}
	}
	return best
}

// outs returns the uplinks that a network's guests may leave by: beside its default route's
// those that the host's more specific routes lead to (the LAN of a second interface, a
// split-tunnel VPN), as far as the network's settings allow.
func outs(s vnet.Settings, ups *vnet.Uplinks) []vnet.Uplink {
	_, tunnelled := tunnel(ups)
	var list []vnet.Uplink
	for _, u := range ups.List {
		allowed := false
		switch s.Uplink {
		case "none":
		case "auto":
			switch s.VPN {
			case "follow": // under a full tunnel nothing passes it by
				allowed = !tunnelled || u.Kind == vnet.VPN
			case "bypass":
				allowed = u.Kind != vnet.VPN
			case "block":
				allowed = !tunnelled && u.Kind != vnet.VPN
			}
		default:
			allowed = u.Interface == s.Uplink
		}
		if allowed && hasIPv4(u) {
			list = append(list, u)
		}
	}
	return list
}

func hasIPv4(u vnet.Uplink) bool {
	for _, p := range u.Addresses {
		if p.Addr().Is4() && !p.Addr().IsLinkLocalUnicast() {
			return true
		}
	}
	return false
}

// table returns the routing table of the network's default route: all networks that are
// bound in the same way share one, so that a switch is one route however many they are.
func table(s vnet.Settings, k *vnet.Kernel) uint32 {
	switch s.Uplink {
	case "none":
		return TableNone
	case "auto":
		switch s.VPN {
		case "bypass":
			return TableBypass
		case "block":
			return TableBlock
		}
		return TableFollow
	}
	if l, ok := k.LinkByName(s.Uplink); ok {
		return TablePinned + uint32(l.Index)
	}
	return TableNone
}
