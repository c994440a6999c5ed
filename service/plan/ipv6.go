package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// decideIPv6 settles how a network's guests get IPv6: from the link itself, where the uplink is a bridge
// that they may be bridged to, else among themselves only.
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
	if UplinkIsBridge(up) && Sharing(b.want, up) != "never" {
		d.uplink6 = up // also when nobody is heard there yet: it is the way
	}
	d.IPv6State, d.IPv6Reason = Method6(b.want, &b.have, up)
	if d.IPv6State != "bridge" {
		return
	}
	if why != "" {
		d.IPv6Reason += "; " + why
	}
	for _, r := range b.have.NDP.Advertised[up.Interface].Routers {
		for _, p := range r.Prefixes {
			if !slices.Contains(d.IPv6Prefixes, p) {
				d.IPv6Prefixes = append(d.IPv6Prefixes, p)
			}
		}
	}
	slices.SortFunc(d.IPv6Prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
}

// bind6 chooses the uplink for a network's IPv6: the same as for IPv4, for two families that go by two
// uplinks are two networks to a guest. Only where there is no IPv4 at all, it is the one that
// the host's own IPv6 goes by; and one that lost its carrier a moment ago, with no other to go to, is
// kept, since what a guest is told can't be taken back for nothing.
func (b *builder) bind6(d *Decision) (up *vnet.Uplink, why string) {
	ups := &b.have.Uplinks
	up, why = bind(d.settings, ups)
	if up != nil || d.settings.Uplink == "none" {
		return up, why
	}
	if outer, ok := b.outer(d.Name); ok && outer.Master != 0 {
		for i := range ups.List {
			if u := &ups.List[i]; u.Index == outer.Master && u.LostCarrier && b.allowed(d, u) {
				return u, "its carrier was lost a moment ago"
			}
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

// allowed tells whether the network's settings let guests out by the uplink at all.
func (b *builder) allowed(d *Decision, u *vnet.Uplink) bool {
	if d.settings.Uplink != "auto" {
		return u.Interface == d.settings.Uplink
	}
	primary, _ := b.have.Uplinks.Find(b.have.Uplinks.Primary)
	return u.Kind != vnet.VPN && (primary.Kind != vnet.VPN || d.settings.VPN == "bypass")
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
	heard := have.NDP.Advertised[u.Interface]
	switch {
	case Sharing(want, u) == "never":
		return "link-local", u.Interface + " is set never to be shared"
	case u.Bridge != "":
		return "link-local", fmt.Sprintf("%s is a port of %s, which guests are bridged to", u.Interface, u.Bridge)
	case u.Kind == vnet.VPN:
		return "link-local", fmt.Sprintf("%s is a VPN, and this version extends no VPN's IPv6 to guests", u.Interface)
	case !UplinkIsBridge(u) && u.Unshareable != "":
		return "link-local", fmt.Sprintf("%s cannot be bridged to: %s", u.Interface, u.Unshareable)
	case !UplinkIsBridge(u):
		return "link-local", fmt.Sprintf("%s is no bridge; setting its sharing to bridge makes it one", u.Interface)
	case len(heard.Routers) == 0 && !heard.Settled:
		return "link-local", "listening for IPv6 routers on " + u.Interface
	case len(heard.Routers) == 0:
		return "link-local", "no router advertises IPv6 on " + u.Interface
	}
	return "bridge", "guests are bridged to " + u.Interface
}
