package uplink

import (
	"net/netip"
	"slices"
	"strings"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

// objects is what GetManagedObjects returns: properties by path and interface.
type objects = map[godbus.ObjectPath]map[string]map[string]godbus.Variant

type properties = map[string]godbus.Variant

const (
	nmPath godbus.ObjectPath = nm.NetworkManagerObjectPath
	// dnsPath is where the DnsManager is.
	dnsPath godbus.ObjectPath = nm.NetworkManagerObjectPath + "/DnsManager"
	// activationExternal is NM_ACTIVATION_STATE_FLAG_EXTERNAL (nm-dbus-interface.h, since
	// 1.26), which gonetworkmanager lacks.
	activationExternal nm.NmActivationStateFlag = 0x80
)

// decode makes a picture of NetworkManager's objects. References lead nowhere while objects come
// and go, and "/" means none: either is the same as absent.
func decode(all objects) picture {
	pic := picture{nm: true}
	names := map[godbus.ObjectPath]string{} // devices' interfaces
	for path, ifaces := range all {
		if p, ok := ifaces[nm.DeviceInterface]; ok {
			name := get[string](p, nm.DevicePropertyIpInterface)
			if name == "" {
				name = get[string](p, nm.DevicePropertyInterface)
			}
			names[path] = name
		}
	}
	actives := map[godbus.ObjectPath]*connection{}
	for path, ifaces := range all {
		p, ok := ifaces[nm.ActiveConnectionInterface]
		if !ok {
			continue
		}
		c := decodeConnection(all, p, names)
		actives[path] = &c
		if c.vpn {
			pic.vpns = append(pic.vpns, c)
		}
	}
	for path, ifaces := range all {
		p, ok := ifaces[nm.DeviceInterface]
		if !ok {
			continue
		}
		ip6 := decodeIP6(all, get[godbus.ObjectPath](p, nm.DevicePropertyIp6Config))
		ip6.delegated = decodeDelegated(all, get[godbus.ObjectPath](p, nm.DevicePropertyDhcp6Config))
		pic.devices = append(pic.devices, device{
			name:         names[path],
			kind:         nm.NmDeviceType(get[uint32](p, nm.DevicePropertyDeviceType)),
			state:        nm.NmDeviceState(get[uint32](p, nm.DevicePropertyState)),
			metered:      nm.NmMetered(get[uint32](p, nm.DevicePropertyMetered)),
			connectivity: nm.NmConnectivity(get[uint32](p, nm.DevicePropertyIp4Connectivity)),
			active:       actives[get[godbus.ObjectPath](p, nm.DevicePropertyActiveConnection)],
			ip4:          decodeIP4(all, get[godbus.ObjectPath](p, nm.DevicePropertyIp4Config)),
			ip6:          ip6,
		})
	}
	slices.SortFunc(pic.devices, func(a, b device) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(pic.vpns, func(a, b connection) int { return strings.Compare(a.id+a.uuid, b.id+b.uuid) })
	root := all[nmPath][nm.NetworkManagerInterface]
	if c := actives[get[godbus.ObjectPath](root, nm.NetworkManagerPropertyPrimaryConnection)]; c != nil && len(c.devices) > 0 {
		pic.primary = c.devices[0]
	}
	dns := all[dnsPath][nm.DnsManagerInterface]
	for _, entry := range get[[]properties](dns, nm.DnsManagerPropertyConfiguration) {
		pic.dns = append(pic.dns, decodeDNS(entry))
	}
	return pic
}

func decodeConnection(all objects, p properties, names map[godbus.ObjectPath]string) connection {
	flags := nm.NmActivationStateFlag(get[uint32](p, nm.ActiveConnectionPropertyStateFlags))
	c := connection{
		id:       get[string](p, nm.ActiveConnectionPropertyId),
		uuid:     get[string](p, nm.ActiveConnectionPropertyUuid),
		state:    nm.NmActiveConnectionState(get[uint32](p, nm.ActiveConnectionPropertyState)),
		external: flags&activationExternal != 0,
		vpn:      get[bool](p, nm.ActiveConnectionPropertyVpn),
		default4: get[bool](p, nm.ActiveConnectionPropertyDefault),
		default6: get[bool](p, nm.ActiveConnectionPropertyDefault6),
		ip4:      decodeIP4(all, get[godbus.ObjectPath](p, nm.ActiveConnectionPropertyIp4Config)),
		ip6:      decodeIP6(all, get[godbus.ObjectPath](p, nm.ActiveConnectionPropertyIp6Config)),
	}
	for _, d := range get[[]godbus.ObjectPath](p, nm.ActiveConnectionPropertyDevices) {
		if name := names[d]; name != "" {
			c.devices = append(c.devices, name)
		}
	}
	return c
}

func decodeIP4(all objects, path godbus.ObjectPath) ipConfig {
	p := all[path][nm.IP4ConfigInterface]
	c := ipConfig{
		addresses: decodePrefixes(get[[]properties](p, nm.IP4ConfigPropertyAddressData), "address"),
		gateway:   parseAddr(get[string](p, nm.IP4ConfigPropertyGateway)),
		routes:    decodeRoutes(get[[]properties](p, nm.IP4ConfigPropertyRouteData)),
	}
	for _, entry := range get[[]properties](p, nm.IP4ConfigPropertyNameserverData) {
		if a := parseAddr(get[string](entry, "address")); a.IsValid() {
			c.nameservers = append(c.nameservers, a)
		}
	}
	return c
}

func decodeIP6(all objects, path godbus.ObjectPath) ipConfig {
	p := all[path][nm.IP6ConfigInterface]
	c := ipConfig{gateway: parseAddr(get[string](p, nm.IP6ConfigPropertyGateway))}
	for _, b := range get[[][]byte](p, nm.IP6ConfigPropertyNameservers) {
		if a, ok := netip.AddrFromSlice(b); ok {
			c.nameservers = append(c.nameservers, a.Unmap())
		}
	}
	return c
}

// delegatedOption is the one of a DHCPv6 lease's options that has the delegated prefixes: the name is
// dhclient's, "new_ip6_prefix" without what says that it is new (dhclient-script(8)).
const delegatedOption = "ip6_prefix"

// decodeDelegated reads the prefixes that were delegated (RFC 8415 6.3).
func decodeDelegated(all objects, path godbus.ObjectPath) []netip.Prefix {
	options := get[properties](all[path][nm.DHCP6ConfigInterface], nm.DHCP6ConfigPropertyOptions)
	var list []netip.Prefix
	for _, text := range strings.FieldsFunc(get[string](options, delegatedOption), func(r rune) bool { return r == ' ' || r == ',' }) {
		p, err := netip.ParsePrefix(text)
		if err == nil && p.Addr().Is6() && !p.Addr().Is4In6() && !slices.Contains(list, p.Masked()) {
			list = append(list, p.Masked())
		}
	}
	return list
}

// decodePrefixes reads a list of dictionaries of an address under key and its "prefix".
func decodePrefixes(list []properties, key string) []netip.Prefix {
	var out []netip.Prefix
	for _, entry := range list {
		a := parseAddr(get[string](entry, key))
		if p := netip.PrefixFrom(a, int(get[uint32](entry, "prefix"))); p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

func decodeRoutes(list []properties) []route {
	var out []route
	for _, entry := range list {
		p := netip.PrefixFrom(parseAddr(get[string](entry, "dest")), int(get[uint32](entry, "prefix")))
		if !p.IsValid() {
			continue
		}
		out = append(out, route{
			dst:     p.Masked(),
			nextHop: parseAddr(get[string](entry, "next-hop")),
			metric:  get[uint32](entry, "metric"),
			table:   get[uint32](entry, "table"),
		})
	}
	return out
}

func decodeDNS(p properties) dnsEntry {
	e := dnsEntry{
		domains:  get[[]string](p, "domains"),
		ifname:   get[string](p, "interface"),
		vpn:      get[bool](p, "vpn"),
		priority: get[int32](p, "priority"),
	}
	for _, text := range get[[]string](p, "nameservers") {
		if a := parseAddr(text); a.IsValid() {
			e.servers = append(e.servers, a)
		}
	}
	return e
}

// get returns a property, the zero value if it is absent or of another type. The name may be
// qualified by its interface, as gonetworkmanager's constants are.
func get[T any](p properties, name string) T {
	value, _ := p[name[strings.LastIndexByte(name, '.')+1:]].Value().(T)
	return value
}

// parseAddr returns the zero address for a text that isn't one.
func parseAddr(text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}
