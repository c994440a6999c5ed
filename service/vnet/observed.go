package vnet

import (
	"net/netip"
	"time"
)

// Observed is everything that one pass saw of the machine.
type Observed struct {
	Kernel   Kernel
	Uplinks  Uplinks
	Firewall Firewall
	Servers  []Server
	Leases   map[string][]Lease // by network
	NDP      NDP
	// Gate tells whether the watchdog runs that closes IPv6-only links whose uplink has no carrier.
	Gate bool
	// BlindFirewall and BlindServers are set when that part couldn't be looked at: nothing is
	// planned for it then, and the rest goes on.
	BlindFirewall, BlindServers bool
	// First is set in a process's first pass: what a process that was killed may have
	// left half done is checked for.
	First bool
}

// Firewall is what was seen of our part of the packet filter.
type Firewall struct {
	// Chains is true when our chains have exactly our rules and the jumps to them
	// are in place; Problem says what is amiss otherwise.
	Chains  bool
	Problem string
	// Present is true when anything of ours exists: a chain, a jump, a set, or a table to remove.
	Present bool
	// Sets holds the entries of each of our sets that exists, by the set's name.
	Sets map[string][]SetEntry
	// Guards has, by network, the digest (plan.GuardSpec.Digest) of the guard that stands at both
	// ends of its IPv6-only link; one that is incomplete has "".
	Guards map[string]string
	// Forward is the digest (plan.ForwardSpec.Digest) of the filter of what is routed between
	// bridges, tunnels and other interfaces; "" if it isn't there as a whole.
	Forward string
}

// SetEntry is an entry of a set of type hash:net,iface: addresses of Prefix on Interface.
type SetEntry struct {
	Prefix    netip.Prefix
	Interface string
}

// Server is a dnsmasq that is running for a network.
type Server struct {
	Network string
	PID     int
	// Digest identifies the configuration that it was started with (plan.ServerSpec.Digest).
	Digest string
	// Upstreams is what it was last told, KnownUpstreams whether that is known.
	Upstreams      []Upstream
	KnownUpstreams bool
	// HostsDigest identifies the reservations that it serves (plan.ServerSpec.HostsDigest).
	HostsDigest string
}

// Lease is a DHCPv4 lease.
type Lease struct {
	MAC      string
	Address  netip.Addr
	Hostname string
	// Expires is the wall-clock time of expiry, zero for never.
	Expires time.Time
	// IPv6 are the addresses that its holder is known to have, sorted.
	IPv6 []netip.Addr
}

// Flow is a tracked connection of a guest's, of either family.
type Flow struct {
	Protocol uint8
	// Source and Destination are the original direction's addresses.
	Source, Destination netip.Addr
	// Translated is the address that replies are sent to: Source when not translated.
	Translated netip.Addr
}
