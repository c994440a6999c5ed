package vnet

import "net/netip"

// Router is an IPv6 router of a link, as its router advertisements show it (RFC 4861 4.2).
type Router struct {
	// Address is its link-local address, MAC the source of its frames, lower-case and
	// colon-separated: together they tell it from all others.
	Address netip.Addr
	MAC     string
	// Default tells whether it offers a default route: its router lifetime is not over.
	Default bool
	// Prefixes are those that it advertises for use on the link, whose valid lifetime is
	// not over, sorted.
	Prefixes []netip.Prefix
	// Autonomous are those of Prefixes that hosts may make themselves addresses of (RFC 4861 4.6.2),
	// sorted.
	Autonomous []netip.Prefix
	// Preference is 1 for high, 0 for medium, -1 for low (RFC 4191 2.1).
	Preference int
}

// Advertised is what is known of the routers of one interface.
type Advertised struct {
	Interface string
	// Routers are sorted by address and MAC.
	Routers []Router
	// Settled is set when it was listened to for long enough (five seconds, or since the first
	// advertisement) that what was not heard is not there.
	Settled bool
}

// Taught is what guests of a network may go by: routers that were heard on a link while the network
// was on it. It outlives the boot, so that nothing is left untold.
type Taught struct {
	Network string
	// Routers were not withdrawn.
	Routers []Router
	// Retired are the prefixes that were withdrawn less than two hours ago, which guests may still
	// hold addresses of (RFC 4862 5.5.3 e), sorted.
	Retired []netip.Prefix
}

// NDP is what the neighbour discovery room shows.
type NDP struct {
	// Advertised is by interface name, Taught by network.
	Advertised map[string]Advertised
	Taught     map[string]Taught
	// Serving has, by network, what its bridge does as a router in this process's life.
	Serving map[string]Served
	// Neighbours are, by network, the guests' addresses that are known, sorted by address; of networks
	// that are served by proxy, only those that the kernel is to be told of.
	Neighbours map[string][]Neighbour
}

// Served is how a network's guests are served by its bridge as their router.
type Served struct {
	// Digest identifies what was asked for (plan.ServeSpec.Digest), Uplink is the interface of it.
	Digest, Uplink string
}

// Neighbour is an IPv6 address of a guest's.
type Neighbour struct {
	Address netip.Addr
	// MAC is lower-case and colon-separated; "" when it isn't known again yet after a restart.
	MAC string
}
