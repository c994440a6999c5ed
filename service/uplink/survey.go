package uplink

import (
	"errors"
	"net/netip"
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
	everything = netip.MustParsePrefix("0.0.0.0/0")
	lowerHalf  = netip.MustParsePrefix("0.0.0.0/1")
	upperHalf  = netip.MustParsePrefix("128.0.0.0/1")
)

// survey is a dump of the kernel, arranged by link.
type survey struct {
	links     map[int]vnet.Link
	names     map[string]vnet.Link
	addresses map[int][]vnet.Address
	routes    map[int][]vnet.Route // unicast, others'
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
	for _, r := range k.Routes {
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
	switch l.Kind {
	case "tun", "wireguard", "xfrm", "vti", "ipip", "gre":
		return true
	}
	return false
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

// hasOwnRoutes tells whether somebody routes to more than the link's own subnets.
func (s *survey) hasOwnRoutes(index int) bool {
	for _, r := range s.routes[index] {
		if r.Protocol != unix.RTPROT_KERNEL {
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
