package plan

import (
	"slices"

	"gangway/service/vnet"
)

func forwarding6(ifname string) string { return "net/ipv6/conf/" + ifname + "/forwarding" }
func proxyNDP(ifname string) string    { return "net/ipv6/conf/" + ifname + "/proxy_ndp" }
func proxyDelay(ifname string) string  { return "net/ipv6/neigh/" + ifname + "/proxy_delay" }

// forceForwarding has packets forwarded that come in by the interface, whatever the host's global switch is
// (Linux 6.17): that switch costs the host its quick leaving of a router that went silent.
func forceForwarding(ifname string) string { return "net/ipv6/conf/" + ifname + "/force_forwarding" }

const protocolRA = 9 // RTPROT_RA

// uplinkKeys are the sysctls of others' interfaces that Plan wants to see.
func uplinkKeys(seen *vnet.Observed) []string {
	var keys []string
	for _, u := range seen.Uplinks.List {
		keys = append(keys, disableIPv6(u.Interface), acceptRA(u.Interface), proxyDelay(u.Interface), forceForwarding(u.Interface))
	}
	for _, l := range advertisedTo(&seen.Kernel) {
		if key := acceptRA(l.Name); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// advertisedTo are the links by which the host has a default route that the kernel took from a router
// advertisement, or whoever calls himself so.
func advertisedTo(k *vnet.Kernel) []vnet.Link {
	var links []vnet.Link
	for _, r := range k.Routes6 {
		if r.Dst != anywhere6 || r.Protocol != protocolRA {
			continue
		}
		if l, ok := k.LinkByIndex(r.Link); ok && !slices.Contains(links, l) {
			links = append(links, l)
		}
	}
	return links
}

// borrowForwarding6 lets packets through between the bridges that are routers and their uplinks. The kernel
// drops all default routes that it took from router advertisements when any interface begins to forward, and
// takes none there any more, unless accept_ra is 2: so that comes first, and everywhere.
func (b *builder) borrowForwarding6(borrow func(key, value string)) {
	routed := b.routed()
	if len(routed) == 0 {
		return
	}
	have := b.have.Kernel.Sysctls
	overrule := func(ifname string) {
		_, saved := b.have.Kernel.SavedSysctls[acceptRA(ifname)]
		if saved || have[acceptRA(ifname)] == "1" {
			borrow(acceptRA(ifname), "2")
		}
	}
	for _, l := range advertisedTo(&b.have.Kernel) {
		overrule(l.Name)
	}
	for _, u := range b.have.Uplinks.List {
		overrule(u.Interface)
	}
	_, forced := have[forceForwarding("all")]
	lend := func(key, value string) {
		_, saved := b.have.Kernel.SavedSysctls[key]
		if old, known := have[key]; saved || known && old != value {
			borrow(key, value)
		}
	}
	for _, d := range routed {
		up := d.router.up.Interface
		if forced {
			lend(forceForwarding(up), "1")
		} else {
			lend(forwarding6("all"), "1")
		}
		if d.router.proxy {
			lend(forwarding6(up), "1") // the kernel answers for nobody on an interface that doesn't
			lend(proxyDelay(up), "0")
			// With the interface's own alone, neighbours that ask again whether a guest is still there, by unicast,
			// get no answer: that is routed. Either concerns those addresses alone that are proxied.
			lend(proxyNDP("all"), "1")
		}
	}
}

// setBridge6 makes the bridge a router, whose neighbour advertisements say so (guests drop a default router whose
// don't, RFC 4861 7.2.5), or none.
func (b *builder) setBridge6(d *Decision) {
	value := "0"
	if d.router != nil {
		value = "1"
	}
	for _, key := range []string{forwarding6(d.Bridge), forceForwarding(d.Bridge)} {
		if have, known := b.have.Kernel.Sysctls[key]; known && have != value {
			b.add(phaseSysctl6, SetSysctl{Key: key, Value: value})
		}
	}
}

// hostRoutes6 tells whether the host is an IPv6 router of its own will.
func (b *builder) hostRoutes6() bool {
	_, saved := b.have.Kernel.SavedSysctls[forwarding6("all")]
	return b.have.Kernel.Sysctls[forwarding6("all")] == "1" && !saved
}

// returnable6 is returnable for IPv6.
func (b *builder) returnable6(key string) (value string, ok bool) {
	if key == forwarding6("all") || key == proxyNDP("all") {
		return "1", true
	}
	for _, l := range b.have.Kernel.Links {
		switch key {
		case acceptRA(l.Name):
			return "2", true
		case proxyDelay(l.Name):
			return "0", true
		case forceForwarding(l.Name):
			return "1", true
		case forwarding6(l.Name):
			if b.hostRoutes6() { // switched on since
				return "", true
			}
			return "1", true
		}
	}
	return "", false
}
