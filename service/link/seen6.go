package link

import (
	"slices"

	"gangway/service/plan"
	"gangway/service/vnet"

	"golang.org/x/sys/unix"
)

// defaultBits is the longest prefix that counts as a default route: VPNs lay two halves over it.
const defaultBits = 1

// route6 takes note of our routes, whoever added or deleted them, and of everybody's default routes. All
// else that happens to IPv6's routes is too much to look at each time: each address has a few.
func (s *seen) route6(m message) string {
	routes := parseRoute(m.body, unix.AF_INET6, nil) // those of one message have all but the next hop in common
	if len(routes) == 0 {
		return ""
	}
	r := routes[0]
	switch {
	case r.Protocol == plan.Protocol:
		return "route"
	case r.Dst.Bits() > defaultBits:
		return ""
	case m.kind == unix.RTM_DELROUTE:
		s.forgetRoutes6(func(old vnet.Route) bool { return slices.Contains(routes, old) })
		return "route"
	}
	changed := false
	if m.flags&unix.NLM_F_REPLACE != 0 { // the deletion of what was there isn't announced
		changed = s.forgetRoutes6(func(old vnet.Route) bool {
			return old.Table == r.Table && old.Dst == r.Dst && old.Metric == r.Metric && !slices.Contains(routes, old)
		})
	}
	for _, r := range routes {
		changed = changed || !s.routes6[r]
		s.routes6[r] = true
	}
	if !changed {
		return ""
	}
	return "route"
}

// forgetRoutes6 forgets some of the default routes, and tells whether there were such.
func (s *seen) forgetRoutes6(which func(vnet.Route) bool) (some bool) {
	for r := range s.routes6 {
		if which(r) {
			delete(s.routes6, r)
			some = true
		}
	}
	return some
}

// forgetRoutesBy forgets those by a link that goes down, as the kernel does: it may not announce it
// (net/ipv6/route/skip_notify_on_dev_down).
func (s *seen) forgetRoutesBy(link int) {
	s.forgetRoutes6(func(r vnet.Route) bool { return r.Link == link })
}
