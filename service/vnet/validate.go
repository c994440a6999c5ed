package vnet

import (
	"net/netip"
	"strings"
)

// validateDomain checks a DNS domain: labels of 1 to 63 letters, digits and hyphens
// (RFC 1123 2.1), 253 bytes in all (RFC 1035 2.3.4), and not a name that the guests'
// resolver must leave alone.
func validateDomain(d string) error {
	const key = "domain"
	if len(d) > 253 {
		return SettingErrorf(key, "has %d bytes, 253 at most", len(d))
	}
	start := 0
	for i := 0; i <= len(d); i++ {
		if i == len(d) || d[i] == '.' {
			if err := validateLabel(key, d[start:i]); err != nil {
				return err
			}
			start = i + 1
		}
	}
	// mDNS has "local" and what is below it for its own (RFC 6762 3); "localhost" is RFC 6761
	// 6.3's. Case doesn't matter in DNS (RFC 4343).
	top := strings.ToLower(d[strings.LastIndexByte(d, '.')+1:])
	if top == "local" || top == "localhost" {
		return SettingErrorf(key, "%q is reserved: it ends with %q", d, top)
	}
	return nil
}

func validateLabel(key, label string) error {
	switch {
	case label == "":
		return SettingErrorf(key, "has an empty name or label")
	case len(label) > 63:
		return SettingErrorf(key, "label %q has %d bytes, 63 at most", label, len(label))
	case label[0] == '-' || label[len(label)-1] == '-':
		return SettingErrorf(key, "label %q begins or ends with a hyphen", label)
	}
	for i := 0; i < len(label); i++ {
		c := label[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
			return SettingErrorf(key, "label %q has a character other than letters, digits and '-'", label)
		}
	}
	return nil
}

// validate checks what one field alone can't show.
func (s *Settings) validate() error {
	macs, addresses, names := map[string]bool{}, map[netip.Addr]bool{}, map[string]bool{}
	for _, h := range s.DHCPHosts {
		if macs[h.MAC] {
			return SettingErrorf("dhcp-hosts", "MAC address %s stands twice", h.MAC)
		}
		macs[h.MAC] = true
		if h.Hostname != "" && names[h.Hostname] {
			return SettingErrorf("dhcp-hosts", "host name %q stands twice", h.Hostname)
		}
		names[h.Hostname] = true
		if !h.Address.IsValid() {
			continue
		}
		if addresses[h.Address] {
			return SettingErrorf("dhcp-hosts", "address %s stands twice", h.Address)
		}
		addresses[h.Address] = true
		if s.IPv4Subnet.IsValid() && !Assignable(s.IPv4Subnet, h.Address) {
			return SettingErrorf("dhcp-hosts", "address %s is not a guest's in %s", h.Address, s.IPv4Subnet)
		}
	}
	return nil
}

// Gateway returns the bridge's own address in the subnet: its first.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// LastAddress returns the last address of an IPv4 subnet: its broadcast address.
func LastAddress(subnet netip.Prefix) netip.Addr {
	a := subnet.Masked().Addr().As4()
	for bit := subnet.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

// Assignable tells whether a guest may have the address: within the subnet and
// neither its network, gateway nor broadcast address.
func Assignable(subnet netip.Prefix, a netip.Addr) bool {
	return subnet.Contains(a) && a != subnet.Masked().Addr() && a != Gateway(subnet) && a != LastAddress(subnet)
}
