package vnet

import (
	"net/netip"
	"time"
)

// NetworkStatus is the state of a network; its text is the D-Bus property's.
type NetworkStatus string

// The states of a network.
const (
	Inactive      NetworkStatus = "inactive"
	Starting      NetworkStatus = "starting"
	Active        NetworkStatus = "active"
	Degraded      NetworkStatus = "degraded"
	FailedNetwork NetworkStatus = "failed"
)

// HostStatus is the manager's state.
type HostStatus string

// The manager's states.
const (
	Offline   HostStatus = "offline"
	Switching HostStatus = "switching"
	Online    HostStatus = "online"
)

// Snapshot is an immutable picture of everything that is published, from one pass.
type Snapshot struct {
	State   HostStatus
	Primary string // interface name, "" if none
	// Networks are sorted by name, Uplinks by interface.
	Networks []NetworkState
	Uplinks  []UplinkState
}

// NetworkState is what is published of one network.
type NetworkState struct {
	Name     string
	Settings Settings // as stored, defaults filled in
	State    NetworkStatus
	Reason   string // one sentence, "" when there is nothing to say
	Bridge   string
	Uplink   string // interface name, "" if none
	// Subnet is the IPv4 subnet in use, Address the bridge's own with the prefix length;
	// both zero if none.
	Subnet, Address netip.Prefix
	// IPv4State is nat, routed, isolated, offline or off.
	IPv4State, IPv4Reason string
	// IPv6State is bridge, proxy, routed, nat66, link-local or off.
	IPv6State, IPv6Reason string
	IPv6Prefixes          []netip.Prefix
	Nameservers           []netip.Addr
	Ports                 []Port
	Leases                []Lease
}

// UplinkState is what is published of one uplink.
type UplinkState struct {
	Uplink
	Primary                bool
	Sharing                string
	SharedBridge           string
	IPv6Method, IPv6Reason string
}

// Port is an interface that is a port of a network's bridge.
type Port struct {
	Interface string
	Kind      string // tap, attached
	MAC       string // what was learned behind it, else the port's own
	Owner     uint32 // uid of who asked for it
	// RxBytes are bytes that came from the guest, TxBytes those sent to it.
	RxBytes, TxBytes uint64
}

// PortRef is the wish that an existing interface be a port.
type PortRef struct {
	Interface string `json:"interface"`
	// Index is the interface's at the time of the wish: another interface that
	// later comes by the same name isn't meant.
	Index int    `json:"index"`
	Owner uint32 `json:"owner"`
	// Up tells whether it was up before: if not, it goes down again with the bridge, so that no
	// guest is left on a link that nobody watches over.
	Up bool `json:"up,omitempty"`
}

// Network finds a network by name.
func (s *Snapshot) Network(name string) (NetworkState, bool) {
	for _, n := range s.Networks {
		if n.Name == name {
			return n, true
		}
	}
	return NetworkState{}, false
}

// Uplink finds an uplink by interface name.
func (s *Snapshot) Uplink(ifname string) (UplinkState, bool) {
	for _, u := range s.Uplinks {
		if u.Interface == ifname {
			return u, true
		}
	}
	return UplinkState{}, false
}

// Switch reports one change of the primary uplink. Times are CLOCK_MONOTONIC since boot.
type Switch struct {
	From, To string // interface names, "" for none
	// Detected is when the change reached us, NATDone when the kernel's last IPv4
	// change of the pass was made; IPv6Done is 0 where no network has IPv6 to move.
	Detected, NATDone, IPv6Done time.Duration
	FlowsFlushed                uint32
	Withdrawn, Announced        []netip.Prefix
}

// Event is something that happened, beside the change of state that a snapshot shows.
type Event struct {
	// Network is the network it happened to, "" for the manager's own.
	Network string
	// Exactly one of the following is set.
	Switched                 *Switch
	Renumbered               *Renumbered
	LeaseAdded, LeaseRemoved *Lease
	PortAdded, PortRemoved   *Port
}

// Renumbered says that a network's IPv4 subnet changed.
type Renumbered struct{ Old, New netip.Prefix }
