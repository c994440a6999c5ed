package uplink

import (
	"net/netip"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// picture is what was read of the host beside the link room's dump: NetworkManager's objects,
// its references resolved, and a few files.
type picture struct {
	// nm is set when NetworkManager answered; without it the next four are empty, and why says
	// why it didn't.
	nm  bool
	why string
	// primary is the interface of its PrimaryConnection, "" for none.
	primary string
	devices []device
	vpns    []connection // active, of VPN plugins: they have no device of their own
	dns     []dnsEntry

	profiles []profile
	// shares are the bridges that Share made, also while NetworkManager is away.
	shares []share
	resolv []netip.Addr // nameservers of resolv.conf
	// hardware has the kinds of interfaces of which only the driver knows that
	// they are no Ethernet.
	hardware map[string]vnet.UplinkKind
	// egress is the index of the interface that the kernel's rules choose for the
	// internet, 0 for none; probed tells whether it was asked.
	egress int
	probed bool
	// egress6 is likewise for IPv6, always asked.
	egress6 int
}

// device is a device of NetworkManager.
type device struct {
	name         string // of the interface that carries IP
	kind         nm.NmDeviceType
	state        nm.NmDeviceState
	metered      nm.NmMetered
	connectivity nm.NmConnectivity
	active       *connection // nil if none
	ip4, ip6     ipConfig
}

// connection is an active connection of NetworkManager.
type connection struct {
	id, uuid string
	state    nm.NmActiveConnectionState
	// external: NetworkManager merely looks on, somebody else configures the interface.
	external bool
	vpn      bool
	default4 bool     // has the host's IPv4 default route
	default6 bool     // likewise for IPv6
	devices  []string // interface names
	ip4, ip6 ipConfig
}

// ipConfig is what NetworkManager has set, or is about to set, of one IP version.
type ipConfig struct {
	addresses   []netip.Prefix
	gateway     netip.Addr
	routes      []route
	nameservers []netip.Addr
	// delegated are the prefixes that a DHCPv6 server delegated.
	delegated []netip.Prefix
}

type route struct {
	dst     netip.Prefix
	nextHop netip.Addr
	metric  uint32
	table   uint32 // 0: main
}

// dnsEntry is an entry of DnsManager's Configuration.
type dnsEntry struct {
	servers  []netip.Addr
	domains  []string
	ifname   string
	vpn      bool
	priority int32
}

// profile is what a profile of NetworkManager, active or not, claims.
type profile struct {
	path     godbus.ObjectPath
	id, uuid string
	kind     string // "802-3-ethernet", "bridge", …
	ifname   string // that it is limited to, "" for any
	// master is the UUID or interface of what it is a port of, "" if of nothing.
	master string
	// sharedFrom is the UUID of the profile that this one of ours stands in for, "" if it isn't ours.
	sharedFrom string
	// authenticated: it logs in by 802.1X.
	authenticated bool
	// shared: the interface is a downlink, NetworkManager serves others there.
	shared   bool
	prefixes []netip.Prefix
}
