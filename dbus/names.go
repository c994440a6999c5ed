package dbus

import (
	"fmt"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

// The names of the contract.
const (
	BusName          = "org.gangway.Gangway1"
	ManagerInterface = "org.gangway.Gangway1.Manager"
	NetworkInterface = "org.gangway.Gangway1.Network"
	UplinkInterface  = "org.gangway.Gangway1.Uplink"
	RootPath         = godbus.ObjectPath("/org/gangway/Gangway1")

	networksPath = RootPath + "/network"
	uplinksPath  = RootPath + "/uplink"
	// none is how the contract writes an absent object.
	none = godbus.ObjectPath("/")
)

// NetworkPath returns the object path of the network with the name.
func NetworkPath(name string) godbus.ObjectPath {
	return networksPath + "/" + godbus.ObjectPath(EscapeLabel(name))
}

// UplinkPath returns the object path of the uplink with the interface name, "/" for "".
func UplinkPath(ifname string) godbus.ObjectPath {
	if ifname == "" {
		return none
	}
	return uplinksPath + "/" + godbus.ObjectPath(EscapeLabel(ifname))
}

// EscapeLabel makes an element of an object path of any string, as systemd's bus_label_escape
// does: ASCII letters and, but for the first character, digits stay; any other byte becomes
// _xx in lower-case hexadecimal; "" becomes "_".
func EscapeLabel(s string) string {
	if s == "" {
		return "_"
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if isLetter(c) || i > 0 && isDigit(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// UnescapeLabel is the reverse of EscapeLabel. What EscapeLabel never makes is an error.
func UnescapeLabel(label string) (string, error) {
	if label == "_" {
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(label); i++ {
		if label[i] != '_' {
			b.WriteByte(label[i])
			continue
		}
		if i+2 >= len(label) {
			return "", fmt.Errorf("cannot unescape label %q: it ends within an escape", label)
		}
		high, low := hexValue(label[i+1]), hexValue(label[i+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("cannot unescape label %q: bad escape %q", label, label[i:i+3])
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	// One name has one path: _61 for a, or an unescaped character that needs escaping, is no label.
	if EscapeLabel(b.String()) != label {
		return "", fmt.Errorf("cannot unescape label %q: it is not in canonical form", label)
	}
	return b.String(), nil
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

func hexValue(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
