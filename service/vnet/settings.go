package vnet

import (
	"net/netip"
	"slices"
)

// DHCPHost is a reservation: the guest with the MAC gets the address, the name or both.
type DHCPHost struct {
	MAC      string     // lower-case, colon-separated
	Address  netip.Addr // zero: any
	Hostname string     // "": the guest's own
}

// Settings are a network's definition, with defaults filled in.
type Settings struct {
	Autostart bool
	// Bridge is the bridge's interface name, "" until one has been chosen.
	Bridge string
	// IPv4Method is nat, routed, isolated or off.
	IPv4Method string
	// IPv4Subnet is the subnet, the zero Prefix for auto.
	IPv4Subnet netip.Prefix
	// OnClash is renumber or report.
	OnClash string
	// IPv6Method is auto, bridge, proxy, routed, nat66, link-local or off.
	IPv6Method string
	// IPv6Prefix is where the guests' own /64 is from when they are routed, the zero Prefix for what
	// the uplink delegates.
	IPv6Prefix netip.Prefix
	// Inbound is deny or allow: new IPv6 connections from the uplink.
	Inbound string
	// Uplink is auto, none or an interface name.
	Uplink string
	// VPN is follow, bypass or block.
	VPN string
	// Domain is the DNS domain of the guests.
	Domain string
	// NAT66Fallback lets auto translate guests' IPv6 where there is no better way.
	NAT66Fallback bool
	// HostAccess is services or all.
	HostAccess   string
	DHCP         bool
	DHCPHosts    []DHCPHost
	IsolatePorts bool
	// MTU is the guests' MTU in bytes, 0 for the uplink's.
	MTU uint32
}

// DefaultDomain is the DNS domain of a network that names none: NETWORK.internal, below the
// top-level domain that is reserved for private use.
func DefaultDomain(name string) string {
	label := []byte(name)
	for i, c := range label {
		if c == '_' { // not in host names (RFC 952, RFC 1123 2.1)
			label[i] = '-'
		}
	}
	return string(label) + ".internal"
}

// DefaultSettings are the settings of a network about which nothing was said.
func DefaultSettings(name string) Settings {
	return Settings{
		Autostart:  true,
		IPv4Method: "nat",
		OnClash:    "renumber",
		IPv6Method: "auto",
		Inbound:    "deny",
		Uplink:     "auto",
		VPN:        "follow",
		Domain:     DefaultDomain(name),
		HostAccess: "services",
		DHCP:       true,
	}
}

// Clone returns a copy that shares nothing with s.
func (s Settings) Clone() Settings {
	s.DHCPHosts = slices.Clone(s.DHCPHosts)
	return s
}

// Merge returns a copy of s with the values in it, each by its key (see Fields) and of the
// plain Go type that the key's field names. An unknown key, a wrong type or a value out of
// range is an error that names the key. The result is checked as a whole, too.
func (s Settings) Merge(values map[string]any) (Settings, error) {
	merged := s.Clone()
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys) // the same culprit is named each time
	for _, key := range keys {
		f, ok := FieldByKey(key)
		if !ok {
			return s, SettingErrorf(key, "is not a setting")
		}
		if err := f.set(&merged, values[key]); err != nil {
			return s, err
		}
	}
	if err := merged.validate(); err != nil {
		return s, err
	}
	return merged, nil
}

// Values returns all settings by key, as plain Go types: what Merge takes.
func (s Settings) Values() map[string]any {
	values := make(map[string]any, len(fields))
	for _, f := range fields {
		values[f.Key] = f.Get(s)
	}
	return values
}
