package link

import (
	"net/netip"

	"gangway/service/vnet"

	"golang.org/x/sys/unix"
)

// seen remembers what was last announced of each link, address, setting and IPv6 default route, to
// tell a change from a repetition: the kernel announces links for many reasons that Observe doesn't
// show, and an IPv6 address each time that a router renews its lifetime; so do others who set the
// default routes.
type seen struct {
	links     map[linkKey]vnet.Link
	addresses map[addressKey]vnet.Address
	settings  map[netconfKey]netconf
	routes6   map[vnet.Route]bool
}

// linkKey: a bridge announces its ports by messages of its own, with less in them.
type linkKey struct {
	family uint8
	index  int
}

type addressKey struct {
	link        int
	local, peer netip.Prefix
}

func newSeen() *seen {
	return &seen{links: map[linkKey]vnet.Link{}, addresses: map[addressKey]vnet.Address{},
		settings: map[netconfKey]netconf{}, routes6: map[vnet.Route]bool{}}
}

// relevant returns what kind of thing changed, "" if nothing did.
func (s *seen) relevant(m message) string {
	kind, body := m.kind, m.body
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return s.link(kind, body)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return s.address(kind, body)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(body) > 0 && body[0] == unix.AF_INET6 {
			return s.route6(m)
		}
		return route(body)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return "rule"
	case unix.RTM_NEWNETCONF:
		return s.setting(body)
	case unix.RTM_DELNETCONF: // the link goes, which is announced itself
		if c, ok := parseNetconf(body); ok {
			delete(s.settings, c.netconfKey)
		}
	}
	return ""
}

func (s *seen) link(kind uint16, body []byte) string {
	l, ok := parseLink(body)
	if !ok {
		return ""
	}
	key := linkKey{family: body[0], index: l.Index}
	if kind == unix.RTM_DELLINK {
		delete(s.links, key)
		if key.family != unix.AF_BRIDGE { // else it only ceased to be a port
			for a := range s.addresses {
				if a.link == l.Index {
					delete(s.addresses, a)
				}
			}
		}
		return "link"
	}
	if !l.Up {
		s.forgetRoutesBy(l.Index)
	}
	l.RxBytes, l.TxBytes = 0, 0
	if last, known := s.links[key]; known && last == l {
		return ""
	}
	s.links[key] = l
	return "link"
}

func (s *seen) address(kind uint16, body []byte) string {
	a, ok := parseAddress(body)
	if !ok {
		return ""
	}
	key := addressKey{link: a.Link, local: a.Prefix, peer: a.Peer}
	if kind == unix.RTM_DELADDR {
		delete(s.addresses, key)
		return "address"
	}
	if last, known := s.addresses[key]; known && last == a {
		return ""
	}
	s.addresses[key] = a
	return "address"
}

// route leaves out the local table, which only repeats the addresses, and cached routes.
func route(body []byte) string {
	for _, r := range parseRoute(body, unix.AF_INET, nil) {
		if r.Table != unix.RT_TABLE_LOCAL {
			return "route"
		}
	}
	return ""
}

// setting: a message has those settings only that changed.
func (s *seen) setting(body []byte) string {
	c, ok := parseNetconf(body)
	if !ok {
		return ""
	}
	last, known := s.settings[c.netconfKey]
	if !known {
		last = untold(c.netconfKey)
	}
	now := last.update(c)
	s.settings[c.netconfKey] = now
	if now == last && !c.unnamed {
		return ""
	}
	return "sysctl"
}
