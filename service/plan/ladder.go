package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// way6 is a way in which guests may get IPv6 on an uplink.
type way6 struct {
	// method is bridge, proxy, routed, nat66 or link-local, reason one sentence for a person.
	method, reason string
	// prefixes are those that guests have addresses of.
	prefixes []netip.Prefix
	// waiting is set when the host has no address yet that guests' could be translated to.
	waiting bool
}

func noWay(format string, args ...any) way6 {
	return way6{method: "link-local", reason: fmt.Sprintf(format, args...)}
}

// way6 goes down the ladder, the best method first, as far as the settings allow; d is nil where it is
// about no network in particular. What stands in the way of the last rung tried is the reason.
func (b *builder) way6(s vnet.Settings, d *Decision, u *vnet.Uplink) way6 {
	if u.Bridge != "" {
		return noWay("%s is a port of %s, which guests are bridged to", u.Interface, u.Bridge)
	}
	rungs := map[string]func(vnet.Settings, *Decision, *vnet.Uplink) way6{
		"bridge": b.bridgeWay, "proxy": b.proxyWay, "routed": b.routedWay, "nat66": b.nat66Way}
	if try, ok := rungs[s.IPv6Method]; ok {
		return try(s, d, u)
	}
	if UplinkIsBridge(u) {
		if w := b.bridgeWay(s, d, u); w.method != "link-local" || !b.settled(u) {
			return w
		}
	}
	w := b.proxyWay(s, d, u)
	if w.method == "link-local" && (s.IPv6Prefix.IsValid() || len(u.Delegated) > 0) {
		w = b.routedWay(s, d, u)
	}
	if w.method == "link-local" && b.settled(u) {
		if s.NAT66Fallback {
			return b.nat66Way(s, d, u)
		}
		if b.hasIPv6(u) && Sharing(b.want, u) != "never" {
			w.reason += "; nat66-fallback would translate guests' addresses"
		}
	}
	return w
}

// neverShared is the way on an uplink where guests' own addresses mustn't appear.
func (b *builder) neverShared(u *vnet.Uplink) (way6, bool) {
	return noWay("%s is set never to be shared", u.Interface), Sharing(b.want, u) == "never"
}

func (b *builder) bridgeWay(_ vnet.Settings, _ *Decision, u *vnet.Uplink) way6 {
	if w, never := b.neverShared(u); never {
		return w
	}
	heard := b.have.NDP.Advertised[u.Interface]
	switch {
	case !UplinkIsBridge(u) && u.Unshareable != "":
		return noWay("%s cannot be bridged to: %s", u.Interface, u.Unshareable)
	case !UplinkIsBridge(u):
		return noWay("%s is no bridge; setting its sharing to bridge makes it one", u.Interface)
	case len(heard.Routers) == 0:
		return b.unheard(u)
	}
	w := way6{method: "bridge", reason: "guests are bridged to " + u.Interface}
	for _, r := range heard.Routers {
		w.prefixes = addPrefixes(w.prefixes, r.Prefixes)
	}
	return w
}

// unheard is the way on a link where nobody advertises.
func (b *builder) unheard(u *vnet.Uplink) way6 {
	if !b.have.NDP.Advertised[u.Interface].Settled {
		return noWay("listening for IPv6 routers on %s", u.Interface)
	}
	return noWay("no router advertises IPv6 on %s", u.Interface)
}

// settled tells whether what wasn't heard on the uplink's link isn't there. Where nothing can be heard, it is.
func (b *builder) settled(u *vnet.Uplink) bool {
	l, _ := b.have.Kernel.LinkByIndex(u.Index)
	return l.Type != ethernetType || u.Kind == vnet.VPN || isPointToPoint(u) || b.have.NDP.Advertised[u.Interface].Settled
}

const ethernetType = 1 // ARPHRD_ETHER

// proxyWay: guests are neighbours on the uplink's link, or, where that is point-to-point, its /64 is
// extended to them (RFC 7278).
func (b *builder) proxyWay(_ vnet.Settings, d *Decision, u *vnet.Uplink) way6 {
	if w, never := b.neverShared(u); never {
		return w
	}
	switch {
	case b.have.Kernel.Sysctls[disableIPv6(u.Interface)] == "1":
		return noWay("IPv6 is off on %s", u.Interface)
	case u.Kind == vnet.VPN:
		return b.vpnWay(u)
	case isPointToPoint(u):
		w := way6{method: "proxy", reason: "guests share the prefix of " + u.Interface}
		for _, p := range u.Addresses {
			if isGlobal6(p.Addr()) && p.Bits() == slaacBits {
				w.prefixes = addPrefixes(w.prefixes, []netip.Prefix{p.Masked()})
			}
		}
		switch {
		case !b.hasIPv6(u):
			return noWay("%s has no IPv6", u.Interface)
		case len(w.prefixes) == 0:
			return noWay("%s has an IPv6 address for the host alone", u.Interface)
		}
		return w
	}
	heard := b.have.NDP.Advertised[u.Interface]
	w := way6{method: "proxy", reason: "guests are proxied on " + u.Interface}
	for _, r := range heard.Routers {
		w.prefixes = addPrefixes(w.prefixes, r.Autonomous)
	}
	switch {
	case len(w.prefixes) > 0:
		return w
	case len(heard.Routers) > 0:
		return noWay("no router on %s advertises a prefix that guests could make addresses of", u.Interface)
	case heard.Settled || d == nil || !b.wasOn(d, u):
		return b.unheard(u)
	}
	// A new process, or a replugged cable: who was there may only not have spoken yet.
	for _, r := range b.have.NDP.Taught[d.Name].Routers {
		if b.isBridge(d, r) {
			w.prefixes = addPrefixes(w.prefixes, r.Prefixes)
		}
	}
	if len(w.prefixes) == 0 {
		return b.unheard(u)
	}
	w.reason += ", whose routers are listened for"
	return w
}

func (b *builder) vpnWay(u *vnet.Uplink) way6 {
	if !b.hasIPv6(u) {
		return noWay("the VPN on %s has no IPv6", u.Interface)
	}
	return noWay("the VPN on %s has IPv6 for the host alone", u.Interface)
}

// routedWay: guests have a /64 of their own, of a prefix that is routed to the host.
func (b *builder) routedWay(s vnet.Settings, d *Decision, u *vnet.Uplink) way6 {
	if w, never := b.neverShared(u); never {
		return w
	}
	switch {
	case !s.IPv6Prefix.IsValid() && len(u.Delegated) == 0:
		return noWay("no prefix is delegated to %s, and the settings name none", u.Interface)
	case !b.hasRouter6(u) && !b.settled(u):
		return b.unheard(u)
	case !b.hasRouter6(u):
		return noWay("%s has no IPv6 default route", u.Interface)
	case d == nil:
		return way6{method: "routed", reason: "guests have a /64 of " + u.Delegated[0].String(), prefixes: u.Delegated[:1]}
	}
	p, why := b.own64(d, u)
	if why != "" {
		return noWay("%s", why)
	}
	return way6{method: "routed", reason: fmt.Sprintf("guests have %s, routed by %s", p, u.Interface), prefixes: []netip.Prefix{p}}
}

// nat66Way: guests have unique local addresses, which are translated to the host's.
func (b *builder) nat66Way(_ vnet.Settings, d *Decision, u *vnet.Uplink) way6 {
	switch {
	case b.have.Kernel.Sysctls[disableIPv6(u.Interface)] == "1":
		return noWay("IPv6 is off on %s", u.Interface)
	case !b.hasRouter6(u) && !b.settled(u):
		return b.unheard(u)
	case !b.hasRouter6(u) && u.Kind == vnet.VPN:
		return b.vpnWay(u)
	case !b.hasRouter6(u):
		return noWay("%s has no IPv6 default route", u.Interface)
	}
	w := way6{method: "nat66", reason: "guests' addresses are translated to that of " + u.Interface}
	if d != nil {
		w.prefixes = []netip.Prefix{vnet.UniqueLocal(b.want.Seed, d.Name)}
	}
	if w.waiting = !hasGlobal6(u); w.waiting {
		w.reason = "the address of " + u.Interface + " that guests' are to be translated to is not usable yet"
	}
	return w
}

// slaacBits is the length of prefixes that hosts on Ethernet make addresses of (RFC 4862 5.5.3 d,
// RFC 2464 4).
const slaacBits = 64

// isPointToPoint tells whether the uplink has just a peer.
func isPointToPoint(u *vnet.Uplink) bool {
	return u.PointToPoint || u.Kind == vnet.WWAN || u.Kind == vnet.PPP
}

// hasIPv6 tells whether the host has IPv6 on the uplink.
func (b *builder) hasIPv6(u *vnet.Uplink) bool { return hasGlobal6(u) && b.hasRouter6(u) }

func hasGlobal6(u *vnet.Uplink) bool {
	return slices.ContainsFunc(u.Addresses, func(p netip.Prefix) bool { return isGlobal6(p.Addr()) })
}

// isGlobal6 tells whether it is an IPv6 address beyond the link, unique local ones included.
func isGlobal6(a netip.Addr) bool { return a.Is6() && a.IsGlobalUnicast() }

// hasRouter6 tells whether a default route leads out by the uplink.
func (b *builder) hasRouter6(u *vnet.Uplink) bool {
	return u.Default6 || slices.ContainsFunc(b.have.NDP.Advertised[u.Interface].Routers, func(r vnet.Router) bool { return r.Default })
}

func addPrefixes(list, more []netip.Prefix) []netip.Prefix {
	for _, p := range more {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}
