package vnet

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Field describes one setting: the one place that knows its key, its type and its range.
type Field struct {
	// Key is the kebab-case key, the same on the bus and in files.
	Key string
	// Signature is the D-Bus type: b, s, u or aa{sv}. The plain Go types are bool, string,
	// uint32 and []map[string]any.
	Signature string
	// Get returns the value as the plain Go type.
	Get func(Settings) any

	set func(*Settings, any) error
}

// Fields returns the description of every setting, in the order of the documentation.
func Fields() []Field { return slices.Clone(fields) }

// FieldByKey returns the description of the setting with the key.
func FieldByKey(key string) (Field, bool) {
	for _, f := range fields {
		if f.Key == key {
			return f, true
		}
	}
	return Field{}, false
}

var fields = []Field{
	boolField("autostart", func(s *Settings) *bool { return &s.Autostart }),
	textField("bridge", func(s *Settings) *string { return &s.Bridge }, func(v string) error {
		if v == "" {
			return nil
		}
		return ValidateInterfaceName("bridge", v)
	}),
	enumField("ipv4-method", func(s *Settings) *string { return &s.IPv4Method }, "nat", "routed", "isolated", "off"),
	subnetField(),
	enumField("on-clash", func(s *Settings) *string { return &s.OnClash }, "renumber", "report"),
	enumField("ipv6-method", func(s *Settings) *string { return &s.IPv6Method },
		"auto", "bridge", "proxy", "routed", "nat66", "link-local", "off"),
	prefix6Field(),
	enumField("inbound", func(s *Settings) *string { return &s.Inbound }, "deny", "allow"),
	textField("uplink", func(s *Settings) *string { return &s.Uplink }, func(v string) error {
		return ValidateInterfaceName("uplink", v) // auto and none are well-formed names, too
	}),
	enumField("vpn", func(s *Settings) *string { return &s.VPN }, "follow", "bypass", "block"),
	textField("domain", func(s *Settings) *string { return &s.Domain }, validateDomain),
	boolField("nat66-fallback", func(s *Settings) *bool { return &s.NAT66Fallback }),
	enumField("host-access", func(s *Settings) *string { return &s.HostAccess }, "services", "all"),
	boolField("dhcp", func(s *Settings) *bool { return &s.DHCP }),
	hostsField(),
	boolField("isolate-ports", func(s *Settings) *bool { return &s.IsolatePorts }),
	mtuField(),
}

func boolField(key string, at func(*Settings) *bool) Field {
	return Field{Key: key, Signature: "b",
		Get: func(s Settings) any { return *at(&s) },
		set: func(s *Settings, v any) error {
			b, ok := v.(bool)
			if !ok {
				return SettingErrorf(key, "must be a boolean, is %s", typeName(v))
			}
			*at(s) = b
			return nil
		}}
}

func textField(key string, at func(*Settings) *string, check func(string) error) Field {
	return Field{Key: key, Signature: "s",
		Get: func(s Settings) any { return *at(&s) },
		set: func(s *Settings, v any) error {
			text, ok := v.(string)
			if !ok {
				return SettingErrorf(key, "must be a string, is %s", typeName(v))
			}
			if err := check(text); err != nil {
				return err
			}
			*at(s) = text
			return nil
		}}
}

func enumField(key string, at func(*Settings) *string, values ...string) Field {
	return textField(key, at, func(v string) error {
		if !slices.Contains(values, v) {
			return SettingErrorf(key, "%q is not one of %s", v, strings.Join(values, ", "))
		}
		return nil
	})
}

func subnetField() Field {
	const key = "ipv4-subnet"
	return Field{Key: key, Signature: "s",
		Get: func(s Settings) any {
			if !s.IPv4Subnet.IsValid() {
				return "auto"
			}
			return s.IPv4Subnet.String()
		},
		set: func(s *Settings, v any) error {
			text, ok := v.(string)
			if !ok {
				return SettingErrorf(key, "must be a string, is %s", typeName(v))
			}
			if text == "auto" {
				s.IPv4Subnet = netip.Prefix{}
				return nil
			}
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return SettingErrorf(key, "%q is neither \"auto\" nor an IPv4 subnet such as 192.168.231.0/24", text)
			}
			if err := validateSubnet(key, p); err != nil {
				return err
			}
			s.IPv4Subnet = p
			return nil
		}}
}

// private lists what guests' subnets may lie in: private use (RFC 1918), shared address
// space (RFC 6598), benchmarking (RFC 2544), documentation (RFC 5737).
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
}

func validateSubnet(key string, p netip.Prefix) error {
	switch {
	case !p.Addr().Is4():
		return SettingErrorf(key, "%s is not an IPv4 subnet", p)
	case p != p.Masked():
		return SettingErrorf(key, "%s has host bits set; the subnet is %s", p, p.Masked())
	case p.Bits() < 8 || p.Bits() > 29:
		return SettingErrorf(key, "%s: the prefix length must be 8 to 29, so that a gateway and guests have room", p)
	}
	for _, within := range private {
		if within.Bits() <= p.Bits() && within.Contains(p.Addr()) {
			return nil
		}
	}
	return SettingErrorf(key, "%s is not within a private range (RFC 1918, RFC 6598)", p)
}

// The prefixes that guests' /64s may be taken from: global unicast (RFC 4291 2.4) and unique local
// (RFC 4193) addresses, from /32 to /64.
var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	uniqueLocal   = netip.MustParsePrefix("fc00::/7")
)

const shortestPrefix6, longestPrefix6 = 32, 64

func prefix6Field() Field {
	const key = "ipv6-prefix"
	return Field{Key: key, Signature: "s",
		Get: func(s Settings) any {
			if !s.IPv6Prefix.IsValid() {
				return "auto"
			}
			return s.IPv6Prefix.String()
		},
		set: func(s *Settings, v any) error {
			text, ok := v.(string)
			if !ok {
				return SettingErrorf(key, "must be a string, is %s", typeName(v))
			}
			if text == "auto" {
				s.IPv6Prefix = netip.Prefix{}
				return nil
			}
			p, err := netip.ParsePrefix(text)
			switch {
			case err != nil:
				return SettingErrorf(key, "%q is neither \"auto\" nor an IPv6 prefix such as 2001:db8:1:2::/64", text)
			case !globalUnicast.Contains(p.Addr()) && !uniqueLocal.Contains(p.Addr()):
				return SettingErrorf(key, "%s is neither global unicast (2000::/3) nor unique local (fc00::/7)", p)
			case p.Bits() < shortestPrefix6 || p.Bits() > longestPrefix6:
				return SettingErrorf(key, "%s: the prefix length must be %d to %d, so that guests have a /64", p, shortestPrefix6, longestPrefix6)
			case p != p.Masked():
				return SettingErrorf(key, "%s has host bits set; the prefix is %s", p, p.Masked())
			}
			s.IPv6Prefix = p
			return nil
		}}
}

func hostsField() Field {
	const key = "dhcp-hosts"
	return Field{Key: key, Signature: "aa{sv}",
		Get: func(s Settings) any {
			list := make([]map[string]any, 0, len(s.DHCPHosts))
			for _, h := range s.DHCPHosts {
				entry := map[string]any{"mac": h.MAC}
				if h.Address.IsValid() {
					entry["address"] = h.Address.String()
				}
				if h.Hostname != "" {
					entry["hostname"] = h.Hostname
				}
				list = append(list, entry)
			}
			return list
		},
		set: func(s *Settings, v any) error {
			list, ok := v.([]map[string]any)
			if !ok {
				return SettingErrorf(key, "must be an array of dictionaries, is %s", typeName(v))
			}
			if len(list) > MaxDHCPHosts {
				return SettingErrorf(key, "has %d entries, %d at most", len(list), MaxDHCPHosts)
			}
			var hosts []DHCPHost // nil for none, as in DefaultSettings: equal settings compare equal
			for _, entry := range list {
				h, err := parseHost(key, entry)
				if err != nil {
					return err
				}
				hosts = append(hosts, h)
			}
			s.DHCPHosts = hosts
			return nil
		}}
}

// MaxDHCPHosts is how many reservations a network may have.
const MaxDHCPHosts = 1024

func parseHost(key string, entry map[string]any) (DHCPHost, error) {
	var h DHCPHost
	for _, k := range slices.Sorted(maps.Keys(entry)) { // the same culprit is named each time
		v := entry[k]
		text, ok := v.(string)
		if !ok {
			return h, SettingErrorf(key, "entry %q must be a string, is %s", k, typeName(v))
		}
		switch k {
		case "mac":
			mac, err := net.ParseMAC(text)
			if err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
				return h, SettingErrorf(key, "%q is not a unicast Ethernet MAC address", text)
			}
			h.MAC = mac.String()
		case "address":
			a, err := netip.ParseAddr(text)
			if err != nil || !a.Is4() {
				return h, SettingErrorf(key, "%q is not an IPv4 address", text)
			}
			h.Address = a
		case "hostname":
			if err := validateLabel(key, text); err != nil {
				return h, err
			}
			h.Hostname = strings.ToLower(text)
		default:
			return h, SettingErrorf(key, "an entry has the unknown key %q (mac, address, hostname)", k)
		}
	}
	switch {
	case h.MAC == "":
		return h, SettingErrorf(key, "an entry has no \"mac\"")
	case !h.Address.IsValid() && h.Hostname == "":
		return h, SettingErrorf(key, "the entry of %s has neither \"address\" nor \"hostname\"", h.MAC)
	}
	return h, nil
}

func mtuField() Field {
	const key = "mtu"
	return Field{Key: key, Signature: "u",
		Get: func(s Settings) any { return s.MTU },
		set: func(s *Settings, v any) error {
			n, ok := v.(uint32)
			if !ok {
				return SettingErrorf(key, "must be an unsigned 32-bit number, is %s", typeName(v))
			}
			// 1280: IPv6's least (RFC 8200 5). 65535: the bridge driver's most.
			if n != 0 && (n < 1280 || n > 65535) {
				return SettingErrorf(key, "%d is neither 0 (the uplink's) nor 1280 to 65535", n)
			}
			s.MTU = n
			return nil
		}}
}

func typeName(v any) string {
	switch v.(type) {
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case uint32:
		return "an unsigned 32-bit number"
	case []map[string]any:
		return "an array of dictionaries"
	case nil:
		return "nothing"
	default:
		return "of another type"
	}
}
