package link

import (
	"strconv"

	"gangway/service/vnet"

	"golang.org/x/sys/unix"
)

// Attributes and indices of RTM_*NETCONF (linux/netconf.h).
const (
	netconfIfindex         = 1
	netconfForwarding      = 2
	netconfRPFilter        = 3
	netconfProxyNeigh      = 5
	netconfForceForwarding = 9

	netconfAll     = -1
	netconfDefault = -2

	// sizeofNetconfmsg is struct netconfmsg's, a family, with the padding to the attributes.
	sizeofNetconfmsg = 4
)

// absent says that a netconf message doesn't tell the value.
const absent = -1

// netconfKey is whose settings they are: a family's, on a link.
type netconfKey struct {
	family uint8
	index  int
}

// netconf is what a RTM_NEWNETCONF says of one link. IPv4 has forwarding and rpFilter, IPv6 the others
// and forwarding.
type netconf struct {
	netconfKey
	forwarding, rpFilter, proxyNDP, forceForwarding int32
	// unnamed tells that the message has no value at all, which is what Linux 6.17 and 6.18 announce a
	// change of force_forwarding by. Nor do they list it.
	unnamed bool
}

func untold(k netconfKey) netconf {
	return netconf{netconfKey: k, forwarding: absent, rpFilter: absent, proxyNDP: absent, forceForwarding: absent}
}

func parseNetconf(b []byte) (c netconf, ok bool) {
	if len(b) < sizeofNetconfmsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return c, false
	}
	c = untold(netconfKey{family: b[0]})
	c.unnamed = true
	for a := range attributes(b[sizeofNetconfmsg:]) {
		if a.kind == netconfIfindex {
			c.index = int(int32(a.u32()))
			ok = true
			continue
		}
		c.unnamed = false
		switch a.kind {
		case netconfForwarding:
			c.forwarding = int32(a.u32())
		case netconfRPFilter:
			c.rpFilter = int32(a.u32())
		case netconfProxyNeigh: // IPv4's is of no interest
			if c.family == unix.AF_INET6 {
				c.proxyNDP = int32(a.u32())
			}
		case netconfForceForwarding:
			c.forceForwarding = int32(a.u32())
		}
	}
	return c, ok
}

// update takes over what the later message tells; the rest is as it was.
func (c netconf) update(later netconf) netconf {
	for _, v := range []struct{ value, now *int32 }{
		{&later.forwarding, &c.forwarding}, {&later.rpFilter, &c.rpFilter},
		{&later.proxyNDP, &c.proxyNDP}, {&later.forceForwarding, &c.forceForwarding},
	} {
		if *v.value != absent {
			*v.now = *v.value
		}
	}
	return c
}

// sysctlsOf spells out what the netconf dumps said, by the names of the links.
func sysctlsOf(conf []netconf, links []vnet.Link, more int) map[string]string {
	names := make(map[int]string, len(links)+2)
	for i := range links {
		names[links[i].Index] = links[i].Name
	}
	names[netconfAll], names[netconfDefault] = "all", "default"
	values := make(map[string]string, 5*len(conf)/2+more)
	for _, c := range conf {
		name, known := names[c.index]
		if !known {
			continue // it came or went between the dumps
		}
		dir := "net/ipv4/conf/" + name
		if c.family == unix.AF_INET6 {
			dir = "net/ipv6/conf/" + name
		}
		if c.forwarding != absent {
			values[dir+"/forwarding"] = strconv.Itoa(int(c.forwarding))
		}
		if c.rpFilter != absent {
			values[dir+"/rp_filter"] = strconv.Itoa(int(c.rpFilter))
		}
		if c.proxyNDP != absent {
			values[dir+"/proxy_ndp"] = strconv.Itoa(int(c.proxyNDP))
		}
		if c.forceForwarding != absent {
			values[dir+"/force_forwarding"] = strconv.Itoa(int(c.forceForwarding))
		}
	}
	return values
}
