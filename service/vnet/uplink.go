package vnet

import (
	"net/netip"
	"time"
)

// UplinkKind is the kind of an uplink; its text is the D-Bus property's.
type UplinkKind string

// The kinds of uplinks.
const (
	Ethernet    UplinkKind = "ethernet"
	WiFi        UplinkKind = "wifi"
	WWAN        UplinkKind = "wwan"
	PPP         UplinkKind = "ppp"
	BridgeKind  UplinkKind = "bridge"
	Bond        UplinkKind = "bond"
	VLAN        UplinkKind = "vlan"
	VPN         UplinkKind = "vpn"
	OtherUplink UplinkKind = "other"
)

// Uplink is an interface by which the host may reach the outside.
type Uplink struct {
	Interface string
	Index     int
	Kind      UplinkKind
	// Connection and ConnectionUUID are NetworkManager's id and UUID, "" without it.
	Connection, ConnectionUUID string
	// Addresses are the kernel's, both families, with their prefix lengths.
	Addresses []netip.Prefix
	// Default4 tells whether it offers an IPv4 default route; Gateway4 is its next hop,
	// zero for a route without one (point-to-point).
	Default4 bool
	Gateway4 netip.Addr
	// Metric4 is the IPv4 default route's metric, lower is better.
	Metric4 uint32
	MTU     int
	// Default6, Gateway6 and Metric6 are likewise for IPv6; where routers are heard, those count.
	Default6 bool
	Gateway6 netip.Addr
	Metric6  uint32
	// PointToPoint tells that it has no link to share, just a peer: no neighbours are discovered there.
	PointToPoint bool
	// Delegated are the prefixes that were delegated to the host by this uplink's DHCPv6 server
	// (RFC 8415 6.3), as NetworkManager tells them.
	Delegated []netip.Prefix
	// Usable tells that guests' IPv4 can go out by it now: up, carrier there (or lost
	// more recently than the hold-down), an IPv4 address in the kernel and a default route
	// to be had. Reason says in a few words why it isn't.
	Usable bool
	Reason string
	// LostCarrier is set for three seconds after the carrier went: a cable that is back by then
	// leads, as far as anybody can tell, to the same link.
	LostCarrier bool
	// SharedFrom is the UUID of the NetworkManager profile of which Gangway made this bridge, ""
	// for any other interface.
	SharedFrom string
	// Bridge is, of the physical port of such a bridge, the bridge's interface name: the port is
	// no way out of its own, and listed so that its sharing can be seen and set.
	Bridge string
	// Unshareable says in one sentence why the interface can't be made a bridge, "" if it can or
	// is one.
	Unshareable string
	// Routers are the IPv6 default routers, Prefixes the on-link IPv6 prefixes.
	Routers  []netip.Addr
	Prefixes []netip.Prefix
	// Nameservers are those of this uplink, in order of preference.
	Nameservers  []netip.Addr
	Metered      string // yes, no, unknown
	Connectivity string // full, limited, portal, none, unknown
}

// Uplinks is one reading of the uplinks and of what comes with them.
type Uplinks struct {
	// List is sorted by interface name.
	List []Uplink
	// Primary is the interface that carries the host's IPv4 default route now, "" if none:
	// a full-tunnel VPN's when it has the default route.
	Primary string
	// Primary6 is the interface that carries the host's IPv6 default route, "" if none.
	Primary6 string
	// Physical is the best uplink below VPNs, the same as Primary without one.
	Physical string
	// Upstreams are DNS servers that answer for certain domains only (split DNS).
	Upstreams []Upstream
	// Stub is the address of the host's own caching resolver (systemd-resolved's
	// 127.0.0.53) when resolv.conf names one; zero if none.
	Stub netip.Addr
	// Reserved are prefixes that a guest subnet must not overlap: profiles of
	// NetworkManager, VPN routes, DNS servers.
	Reserved []Reservation
	// Source is "NetworkManager" or "rtnetlink".
	Source string
	// Recheck is when the reading changes by the mere passing of time (hold-down), 0 if never.
	Recheck time.Duration
}

// Find returns the uplink with the interface name.
func (u *Uplinks) Find(ifname string) (Uplink, bool) {
	for _, l := range u.List {
		if l.Interface == ifname {
			return l, true
		}
	}
	return Uplink{}, false
}

// Upstream is a DNS server to forward to.
type Upstream struct {
	Address netip.Addr
	// Interface binds queries to that interface; "" for none.
	Interface string
	// Domains limits it to these domains and those below; empty = the default server.
	Domains []string
}

// Reservation is a prefix that is taken, and by whom, in words for a person
// ("the route of wlan0", "Docker's default range").
type Reservation struct {
	Prefix netip.Prefix
	Owner  string
}
