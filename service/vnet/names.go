package vnet

import (
	"crypto/sha256"
	"net"
	"net/netip"
)

// MaxNetworkName is the longest network name in bytes: it becomes a file name, a
// DNS label and part of a bus name, of which the DNS label is the shortest (RFC 1035 2.3.4),
// and it is shown in interface aliases.
const MaxNetworkName = 32

// MaxInterfaceName is the longest interface name in bytes (IFNAMSIZ less the NUL).
const MaxInterfaceName = 15

// ValidateNetworkName says why name can't be a network's: 1 to 32 characters of
// a-z, 0-9, '-' and '_', beginning with a letter and not ending with '-' or '_'.
func ValidateNetworkName(name string) error {
	switch {
	case name == "":
		return SettingErrorf("name", "is empty")
	case len(name) > MaxNetworkName:
		return SettingErrorf("name", "has %d bytes, %d at most", len(name), MaxNetworkName)
	case name[0] < 'a' || name[0] > 'z':
		return SettingErrorf("name", "%q does not begin with a letter a-z", name)
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return SettingErrorf("name", "%q has a character other than a-z, 0-9, '-', '_'", name)
		}
	}
	if last := name[len(name)-1]; last == '-' || last == '_' {
		return SettingErrorf("name", "%q ends with %q", name, last)
	}
	return nil
}

// ValidateInterfaceName says why name can't be a network interface's: 1 to 15 bytes
// of letters, digits, '-', '_', '.', neither "." nor ".." and not beginning with '-'
// (stricter than the kernel, so that no name can be mistaken for an option or a path).
func ValidateInterfaceName(key, name string) error {
	switch {
	case name == "":
		return SettingErrorf(key, "interface name is empty")
	case len(name) > MaxInterfaceName:
		return SettingErrorf(key, "interface name %q has %d bytes, %d at most", name, len(name), MaxInterfaceName)
	case name == "." || name == ".." || name[0] == '-':
		return SettingErrorf(key, "%q is not an interface name", name)
	case name == "all" || name == "default" || name == "lo":
		return SettingErrorf(key, "interface name %q is reserved by the kernel", name)
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return SettingErrorf(key, "interface name %q has a character other than letters, digits, '-', '_', '.'", name)
		}
	}
	return nil
}

// BridgeMAC derives the stable MAC address of a network's bridge: locally administered,
// unicast (IEEE 802 8.2.2), the same for the same seed (the machine's identity) and name.
func BridgeMAC(seed, name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("gangway-bridge\x00" + seed + "\x00" + name))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x03 | 0x02
	return mac
}

// LinkLocal is the link-local address that an interface with the MAC address makes itself of it
// (RFC 4291 2.5.6, appendix A).
func LinkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80,
		8: mac[0] ^ 0x02, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// UniqueLocal derives the /64 that a network's guests have where their addresses are translated: its
// global ID is as good as random (RFC 4193 3.2.2), the same for the same seed (the machine's
// identity) and name.
func UniqueLocal(seed, name string) netip.Prefix {
	sum := sha256.Sum256([]byte("gangway-ula\x00" + seed + "\x00" + name))
	address := [16]byte{0: 0xfd}
	copy(address[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(address), 64)
}
