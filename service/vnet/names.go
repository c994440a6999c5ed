package vnet

import (
	"crypto/sha256"
	"net"
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
