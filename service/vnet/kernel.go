package vnet

import "net/netip"

// Kernel is what one dump of the kernel's network state showed. It holds everything
// of the network namespace, ours and others'; plan tells them apart.
type Kernel struct {
	Links     []Link
	Addresses []Address
	Routes    []Route // IPv4, all tables
	Rules     []Rule  // IPv4
	// Routes6 are the IPv6 unicast routes of the main table, and all that are ours, of any table.
	// Those to link-local and multicast destinations are left out.
	Routes6 []Route
	Rules6  []Rule // IPv6
	// Proxies are the IPv6 addresses that the kernel answers neighbour solicitations for in others'
	// stead (NTF_PROXY), ours and others'.
	Proxies []Proxy
	// Sysctls holds those values that the observer was asked for, by key such as
	// "net/ipv4/conf/wlan0/forwarding"; a key that doesn't exist is absent.
	Sysctls map[string]string
	// SavedSysctls holds the values that others' sysctls had before we changed them,
	// kept until they are restored.
	SavedSysctls map[string]string
}

// Link is a network interface.
type Link struct {
	Index   int
	Name    string
	Kind    string // rtnetlink's IFLA_INFO_KIND: "bridge", "veth", "tun", "wireguard", …; "" for hardware
	Type    uint16 // ARPHRD_*, 1 = Ethernet, 65534 = none
	MAC     string // lower-case, colon-separated; "" if none
	MTU     int
	Up      bool // administratively up (IFF_UP)
	Carrier bool // IFF_LOWER_UP
	Master  int  // index of the bridge or bond that it is a port of, 0 if none
	Alias   string
	Group   uint32 // IFLA_GROUP
	// PointToPoint and Loopback mirror IFF_POINTOPOINT and IFF_LOOPBACK.
	PointToPoint, Loopback bool
	RxBytes, TxBytes       uint64
	// Bridge settings, meaningful when Kind is "bridge".
	MulticastSnooping bool
	// Isolated is the bridge port flag of that name, meaningful when Master is not 0.
	Isolated bool
}

// Address is an address on a link, IPv4 or IPv6.
type Address struct {
	Link       int // index
	Prefix     netip.Prefix
	Peer       netip.Prefix // of a point-to-point link; zero if none
	Scope      uint8        // RT_SCOPE_*: 0 universe, 253 link
	Tentative  bool         // IPv6, duplicate address detection not finished
	Deprecated bool
}

// Route types and scopes that matter here.
const (
	RouteUnicast     = 1 // RTN_UNICAST
	RouteUnreachable = 7 // RTN_UNREACHABLE
)

// Route is a route, of the family that its destination is of.
type Route struct {
	Table    uint32
	Dst      netip.Prefix // 0.0.0.0/0 or ::/0 for a default route
	Gateway  netip.Addr   // zero if on-link
	Link     int          // output interface's index, 0 if none
	Source   netip.Addr   // preferred source, zero if none
	Metric   uint32
	Protocol uint8
	Scope    uint8
	Type     uint8 // RTN_*
	OnLink   bool  // RTNH_F_ONLINK
}

// Proxy is an entry of the kernel's proxied neighbours.
type Proxy struct {
	Address netip.Addr
	Link    int // index of the link on which it is answered for
	// Protocol says who installed it (NDA_PROTOCOL), 0 if nobody said.
	Protocol uint8
}

// Rule is a policy routing rule.
type Rule struct {
	// IPv6 tells which family's it is.
	IPv6     bool
	Priority int
	// IIF is the input interface's name, "" for any.
	IIF string
	// Table is the table to look up.
	Table uint32
	// SuppressPrefixLength rejects routes with this prefix length or less; -1 for none.
	SuppressPrefixLength int
	// Protocol says who installed the rule.
	Protocol uint8
	// Foreign is set when the rule has selectors that this type can't express:
	// such a rule is never ours.
	Foreign bool
}

// LinkByName returns the link with the name.
func (k *Kernel) LinkByName(name string) (Link, bool) {
	for _, l := range k.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}

// LinkByIndex returns the link with the index.
func (k *Kernel) LinkByIndex(index int) (Link, bool) {
	for _, l := range k.Links {
		if l.Index == index {
			return l, true
		}
	}
	return Link{}, false
}
