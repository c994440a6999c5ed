package uplink

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// Routing tables (rtnetlink(7)) and address scopes.
const (
	tableDefault = unix.RT_TABLE_DEFAULT
	tableMain    = unix.RT_TABLE_MAIN
	tableLocal   = unix.RT_TABLE_LOCAL
)

var (
	everything6 = netip.MustParsePrefix("::/0")
	internet6   = netip.MustParsePrefix("2000::/3")
	lowerHalf6  = netip.MustParsePrefix("::/1")
	upperHalf6  = netip.MustParsePrefix("8000::/1")

	everything = netip.MustParsePrefix("0.0.0.0/0")
	lowerHalf  = netip.MustParsePrefix("0.0.0.0/1")
	upperHalf  = netip.MustParsePrefix("128.0.0.0/1")
)

// survey is a dump of the kernel, arranged by link.
type survey struct {
	links     map[int]vnet.Link
	names     map[string]vnet.Link
	addresses map[int][]vnet.Address
	routes    map[int][]vnet.Route // unicast, others', of both families
}

func surveyOf(k *vnet.Kernel) survey {
	s := survey{
		links:     make(map[int]vnet.Link, len(k.Links)),
		names:     make(map[string]vnet.Link, len(k.Links)),
		addresses: make(map[int][]vnet.Address, len(k.Links)),
		routes:    make(map[int][]vnet.Route, len(k.Links)),
	}
	for _, l := range k.Links {
		s.links[l.Index], s.names[l.Name] = l, l
	}
	for _, a := range k.Addresses {
		s.addresses[a.Link] = append(s.addresses[a.Link], a)
	}
	for _, r := range slices.Concat(k.Routes, k.Routes6) {
		if r.Link != 0 && r.Type == vnet.RouteUnicast && r.Protocol != plan.Protocol && r.Table != tableLocal {
			s.routes[r.Link] = append(s.routes[r.Link], r)
		}
	}
	return s
}

// isCandidate tells whether a link may be an uplink at all.
func (s *survey) isCandidate(l vnet.Link) bool {
	if l.Loopback || isOurs(l) {
		return false
	}
	// The port of a bridge or bond has no IP of its own; the port of a VRF has.
	return l.Master == 0 || s.links[l.Master].Kind == "vrf"
}

// isOurs tells whether a link is a bridge of ours.
func isOurs(l vnet.Link) bool {
	return strings.HasPrefix(l.Alias, plan.AliasPrefix) || l.Group&plan.GroupMask == plan.GroupBridge
}

// isTunnel tells whether the kernel's kind of a link is one that full-tunnel VPNs are
// made of. PPP isn't: it may as well be the way to the provider.
func isTunnel(l vnet.Link) bool {
	if isModem(l) {
		return false
	}
	switch l.Kind {
	case "tun", "wireguard", "xfrm", "vti", "ipip", "gre":
		return true
	}
	return false
}

// isModem tells whether a link is a WWAN modem's by its name: such names begin with "ww" and how they were
// found (systemd.net-naming-scheme(7)), or with the kernel's "wwan". The drivers of some are programs,
// which make a tun device.
func isModem(l vnet.Link) bool {
	rest, ok := strings.CutPrefix(l.Name, "ww")
	if !ok || len(rest) < 2 {
		return false
	}
	return rest[:2] == "an" || strings.Contains("cdopPsx", rest[:1]) && strings.Contains("0123456789abcdef", rest[1:2])
}

// hasGlobal4 tells whether the link has an IPv4 address to send from.
func (s *survey) hasGlobal4(index int) bool {
	for _, a := range s.addresses[index] {
		if a.Prefix.Addr().Is4() && a.Scope == unix.RT_SCOPE_UNIVERSE {
			return true
		}
	}
	return false
}

// hasGlobal6 is likewise for IPv6.
func (s *survey) hasGlobal6(index int) bool {
	for _, a := range s.addresses[index] {
		if a.Prefix.Addr().Is6() && a.Scope == unix.RT_SCOPE_UNIVERSE && !a.Tentative {
			return true
		}
	}
	return false
}

// way is a default route.
type way struct {
	gateway netip.Addr
	metric  uint32
}

// mainDefault returns the link's best default route in the main table.
func (s *survey) mainDefault(index int) (way, bool) {
	return s.best(index, everything, func(t uint32) bool { return t == tableMain })
}

// tunnelDefault returns how a tunnel takes everything: besides a default route in the main
// table, by the two halves that hide it (OpenVPN's redirect-gateway def1), or by one in a
// table of the VPN's own (wg-quick, Tailscale).
func (s *survey) tunnelDefault(index int) (way, bool) {
	if w, ok := s.mainDefault(index); ok {
		return w, true
	}
	if w, ok := s.halves(index); ok {
		return w, true
	}
	return s.best(index, everything, func(t uint32) bool { return t != tableMain })
}

func (s *survey) halves(index int) (way, bool) {
	isMain := func(t uint32) bool { return t == tableMain }
	w, lower := s.best(index, lowerHalf, isMain)
	_, upper := s.best(index, upperHalf, isMain)
	return w, lower && upper
}

func (s *survey) best(index int, dst netip.Prefix, table func(uint32) bool) (way, bool) {
	var best way
	found := false
	for _, r := range s.routes[index] {
		if r.Dst == dst && table(r.Table) && (!found || r.Metric < best.metric) {
			best, found = way{r.Gateway, r.Metric}, true
		}
	}
	return best, found
}

// default6 returns how the link takes everything of IPv6, by a default route in the main table, by the two
// halves that hide one, or by a route to all of the internet (RFC 4291 2.4).
func (s *survey) default6(index int) (way, bool) {
	isMain := func(t uint32) bool { return t == tableMain }
	if w, ok := s.best(index, everything6, isMain); ok {
		return w, true
	}
	if w, ok := s.best(index, internet6, isMain); ok {
		return w, true
	}
	w, lower := s.best(index, lowerHalf6, isMain)
	_, upper := s.best(index, upperHalf6, isMain)
	return w, lower && upper
}

// hasOwnRoutes tells whether somebody routes to more than the link's own subnets.
func (s *survey) hasOwnRoutes(index int) bool {
	for _, r := range s.routes[index] {
		if r.Protocol != unix.RTPROT_KERNEL && r.Dst.Addr().Is4() {
			return true
		}
	}
	return false
}

// mainEgress returns the index of the link that the main table chooses for the internet, 0
// for none: the two halves are longer matches than a default route (RFC 1812 5.2.4.3).
func (s *survey) mainEgress() int {
	if index := s.lowest(s.halves); index != 0 {
		return index
	}
	return s.lowest(s.mainDefault)
}

func (s *survey) lowest(find func(int) (way, bool)) int {
	var best way
	chosen := 0
	for index := range s.routes {
		w, ok := find(index)
		if ok && (chosen == 0 || w.metric < best.metric || w.metric == best.metric && index < chosen) {
			best, chosen = w, index
		}
	}
	return chosen
}

// isUnreachable tells whether the error is the kernel's way to say that no route leads there.
func isUnreachable(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) ||
		errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)
}
