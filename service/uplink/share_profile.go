package uplink

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

// settings is a profile as NetworkManager's D-Bus has it: properties by the setting's name.
type settings = map[string]properties

// origin is what Share has to know of an interface to make its bridge indistinguishable from it.
type origin struct {
	ifname string
	// profile is what was applied to the interface, without secrets.
	profile settings
	// mac is in force, permanent is the hardware's own, nil if not known.
	mac, permanent net.HardwareAddr
	// metric4 and metric6 are in force, -1 where not known. NetworkManager's default for a bridge
	// is another than for an Ethernet.
	metric4, metric6 int64
	// clientID is the DHCPv4 client identifier in use, duid and iaid are DHCPv6's; "" if not known. By
	// default they may depend on the profile's UUID or on the interface's name.
	clientID, duid, iaid string
	// local is the link-local address in force, global one made by SLAAC; zero if there is none.
	local, global netip.Addr
}

func (o *origin) id() string   { return get[string](o.profile["connection"], "id") }
func (o *origin) uuid() string { return get[string](o.profile["connection"], "uuid") }

// bridgeName names the bridge of an interface: the kernel allows 15 bytes. taken tells of a name
// whether an interface or profile of others has it.
func bridgeName(ifname string, taken func(string) bool) string {
	const prefix, room = "gwb-", 15 - len("gwb-")
	name := prefix + ifname[max(0, len(ifname)-room):]
	for n := 0; taken(name); n++ {
		h := fnv.New32a()
		fmt.Fprint(h, ifname, n)
		name = fmt.Sprintf("%s%08x", prefix, h.Sum32())
	}
	return name
}

// bridgeProfile makes the profile of the bridge, which has all that the original says of IP.
func bridgeProfile(o *origin, uuid, name string) settings {
	wired := properties{"assigned-mac-address": godbus.MakeVariant(o.mac.String())}
	if mtu, ok := o.profile[typeEthernet]["mtu"]; ok {
		wired["mtu"] = mtu
	}
	s := settings{
		"connection": o.connection(uuid, o.id()+" (bridge)", typeBridge, name),
		"bridge": {
			"interface-name": godbus.MakeVariant(name),
			"mac-address":    godbus.MakeVariant([]byte(o.mac)),
			"stp":            godbus.MakeVariant(false),
			"forward-delay":  godbus.MakeVariant(uint32(0)),
		},
		typeEthernet: wired,
		"ipv4":       o.ip4(),
		"ipv6":       o.ip6(),
		"user":       o.user(),
	}
	for _, name := range []string{"lldp", "wait-device-timeout"} {
		delete(s["connection"], name) // the port's
	}
	for _, name := range []string{"proxy", "hostname"} {
		if p, ok := o.profile[name]; ok {
			s[name] = portable(p)
		}
	}
	return s
}

// portProfile makes the profile of the interface itself, which has all that the original says of Ethernet.
func portProfile(o *origin, uuid, bridgeUUID string) settings {
	s := settings{}
	for name, p := range o.profile {
		switch name {
		case "connection", "ipv4", "ipv6", "proxy", "hostname", "user":
		default:
			s[name] = portable(p)
		}
	}
	con := o.connection(uuid, o.id()+" (port)", typeEthernet, o.ifname)
	con["master"], con["slave-type"] = godbus.MakeVariant(bridgeUUID), godbus.MakeVariant(typeBridge)
	for _, name := range []string{"zone", "secondaries", "gateway-ping-timeout", "metered", "mdns", "llmnr", "dns-over-tls"} {
		delete(con, name) // what concerns IP is the bridge's
	}
	wired := s[typeEthernet]
	if wired == nil {
		wired = properties{}
	}
	// A switch may let no other address in: the port has the bridge's. Nothing is left to defaults, which
	// may be configured to be something else.
	delete(wired, "cloned-mac-address") // the older form of the next
	wired["assigned-mac-address"] = godbus.MakeVariant(o.mac.String())
	if o.permanent.String() == o.mac.String() {
		wired["assigned-mac-address"] = godbus.MakeVariant("permanent")
	}
	s["connection"], s[typeEthernet], s["user"] = con, wired, o.user()
	return s
}

// connection is the original's general part for a profile of ours, whose priority is higher, so
// that it wins at the next start.
func (o *origin) connection(uuid, id, kind, ifname string) properties {
	con := portable(o.profile["connection"])
	for _, name := range []string{"timestamp", "read-only", "master", "slave-type", "controller", "port-type",
		"autoconnect-slaves", "autoconnect-ports"} {
		delete(con, name)
	}
	const highest = 999 // NM_SETTING_CONNECTION_AUTOCONNECT_PRIORITY_MAX
	con["id"], con["uuid"] = godbus.MakeVariant(id), godbus.MakeVariant(uuid)
	con["type"], con["interface-name"] = godbus.MakeVariant(kind), godbus.MakeVariant(ifname)
	con["autoconnect-priority"] = godbus.MakeVariant(min(get[int32](con, "autoconnect-priority")+1, highest))
	return con
}

func (o *origin) user() properties {
	data := maps.Clone(get[map[string]string](o.profile["user"], "data"))
	if data == nil {
		data = map[string]string{}
	}
	data[sharedFromKey] = o.uuid()
	return properties{"data": godbus.MakeVariant(data)}
}

// ip4 is the original's setting, with what would come out otherwise on a bridge said explicitly.
func (o *origin) ip4() properties {
	p := portable(o.profile["ipv4"])
	setMetric(p, o.metric4)
	if o.clientID != "" {
		p["dhcp-client-id"] = godbus.MakeVariant(o.clientID)
	}
	return p
}

// ip6 is likewise.
//
// An address by stable privacy (RFC 7217) depends on the interface's name, which can't be made
// up for. So the interface identifier in force becomes the token of EUI-64 mode; NetworkManager takes a
// token for advertised prefixes only, so that the link-local address is given beside the one
// that it makes of the MAC.
func (o *origin) ip6() properties {
	p := portable(o.profile["ipv6"])
	setMetric(p, o.metric6)
	if o.duid != "" {
		p["dhcp-duid"] = godbus.MakeVariant(o.duid)
	}
	if o.iaid != "" {
		p["dhcp-iaid"] = godbus.MakeVariant(o.iaid)
	}
	switch get[string](p, "method") {
	case "auto", "dhcp", "manual":
	default:
		return p
	}
	const modeEUI64 = int32(0) // NM_SETTING_IP6_CONFIG_ADDR_GEN_MODE_EUI64
	token := get[string](p, "token")
	if token == "" && o.global.IsValid() && identifier(o.global) != eui64(o.mac) {
		p["addr-gen-mode"] = godbus.MakeVariant(modeEUI64)
		p["token"] = godbus.MakeVariant(identifier(o.global).String())
	}
	if o.local.IsValid() && identifier(o.local) != eui64(o.mac) {
		list := get[[]properties](p, "address-data")
		if !slices.ContainsFunc(list, func(e properties) bool { return parseAddr(get[string](e, "address")) == o.local }) {
			list = append(slices.Clone(list), properties{
				"address": godbus.MakeVariant(o.local.String()), "prefix": godbus.MakeVariant(uint32(64))})
			p["address-data"] = godbus.MakeVariant(list)
		}
	}
	return p
}

// setMetric makes the metric explicit where the profile leaves it to the kind of the device.
func setMetric(p properties, inForce int64) {
	if v, ok := p["route-metric"].Value().(int64); (!ok || v < 0) && inForce >= 0 {
		p["route-metric"] = godbus.MakeVariant(inForce)
	}
}

// portable copies a setting so that it can be sent back. The older forms of addresses and routes go:
// the newer ones say all of it, and their structures would be sent as something else.
func portable(p properties) properties {
	out := properties{}
	for name, v := range p {
		if strings.Contains(v.Signature().String(), "(") {
			continue
		}
		out[name] = v
	}
	for newer, older := range map[string]string{"address-data": "addresses", "route-data": "routes", "dns-data": "dns"} {
		if _, ok := out[newer]; ok {
			delete(out, older)
		}
	}
	return out
}

// identifier is an address's lower half, as a token is written.
func identifier(a netip.Addr) netip.Addr {
	b := a.As16()
	clear(b[:8])
	return netip.AddrFrom16(b)
}

// eui64 is the interface identifier that a MAC makes (RFC 4291 appendix A).
func eui64(mac net.HardwareAddr) netip.Addr {
	if len(mac) != 6 {
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte{8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// newUUID is a random one (RFC 9562 5.4).
func newUUID(random [16]byte) string {
	random[6], random[8] = random[6]&0x0f|0x40, random[8]&0x3f|0x80
	h := hex.EncodeToString(random[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// originalProfile makes a profile of the two of ours that does what the original did.
func originalProfile(bridge, port settings, uuid string) settings {
	s := settings{}
	for name, p := range port {
		if name != "user" {
			s[name] = portable(p)
		}
	}
	for _, name := range []string{"ipv4", "ipv6", "proxy", "hostname"} {
		if p, ok := bridge[name]; ok {
			s[name] = portable(p)
		}
	}
	con := portable(bridge["connection"])
	delete(con, "timestamp")
	con["id"] = godbus.MakeVariant(strings.TrimSuffix(get[string](con, "id"), " (bridge)"))
	con["uuid"], con["type"] = godbus.MakeVariant(uuid), godbus.MakeVariant(typeEthernet)
	con["interface-name"] = port["connection"]["interface-name"]
	con["autoconnect-priority"] = godbus.MakeVariant(get[int32](con, "autoconnect-priority") - 1)
	s["connection"] = con
	return s
}
