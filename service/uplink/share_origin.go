package uplink

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

// readOrigin reads what Share has to know of the interface, with its device and presence.
func (r *Reader) readOrigin(ctx context.Context, ifname string) (o origin, d nmDevice, p presence, err error) {
	if d, err = r.device(ctx, ifname); err != nil {
		return o, d, p, err
	}
	if p, err = presenceOf(ifname); err != nil {
		return o, d, p, err
	}
	o = origin{ifname: ifname, local: p.local, global: p.advertised, metric4: -1, metric6: -1}
	if d.active == noObject || d.connection == "" {
		return o, d, p, fmt.Errorf("NetworkManager does not configure %s", ifname)
	}
	var version uint64
	if err := r.call(ctx, d.path, nm.DeviceInterface+".GetAppliedConnection", []any{uint32(0)}, &o.profile, &version); err != nil {
		if o.profile, err = r.settingsOf(ctx, d.connection); err != nil {
			return o, d, p, fmt.Errorf("cannot read the profile of %q: %w", ifname, err)
		}
	}
	if o.mac, err = net.ParseMAC(get[string](d.properties, "HwAddress")); err != nil {
		return o, d, p, fmt.Errorf("cannot read the address of %q: %w", ifname, err)
	}
	if wired, err := r.getAll(ctx, d.path, nm.DeviceWiredInterface); err == nil {
		o.permanent, _ = net.ParseMAC(get[string](wired, "PermHwAddress")) // nil for a veth
	}
	o.metric4 = r.metricInForce(ctx, get[godbus.ObjectPath](d.properties, nm.DevicePropertyIp4Config), nm.IP4ConfigInterface)
	o.metric6 = r.metricInForce(ctx, get[godbus.ObjectPath](d.properties, nm.DevicePropertyIp6Config), nm.IP6ConfigInterface)
	o.clientID = hexOption(r.dhcpOptions(ctx, &d, "Dhcp4Config", "DHCP4Config"), "dhcp_client_identifier")
	p = p.configured(o.profile, r.leased(ctx, &d))
	six := r.dhcpOptions(ctx, &d, "Dhcp6Config", "DHCP6Config")
	o.duid = hexOption(six, "dhcp6_client_id")
	if b, err := hex.DecodeString(strings.ReplaceAll(hexOption(six, "iaid"), ":", "")); err == nil && len(b) == 4 {
		o.iaid = strconv.FormatUint(uint64(binary.BigEndian.Uint32(b)), 10) // a profile has it in decimal
	}
	return o, d, p, nil
}

// metricInForce returns the metric of the routes to an IP configuration's own networks, -1 if there are none. That of
// the default route may have a penalty while there is no connectivity.
func (r *Reader) metricInForce(ctx context.Context, path godbus.ObjectPath, iface string) int64 {
	if path == "" || path == noObject {
		return -1
	}
	p, err := r.getAll(ctx, path, iface)
	if err != nil {
		return -1
	}
	own := map[netip.Prefix]bool{}
	for _, a := range decodePrefixes(get[[]properties](p, "AddressData"), "address") {
		own[a.Masked()] = !a.Addr().IsLinkLocalUnicast() // the kernel's metric
	}
	for _, route := range decodeRoutes(get[[]properties](p, "RouteData")) {
		if own[route.dst] && (route.table == 0 || route.table == tableMain) {
			return int64(route.metric)
		}
	}
	return -1
}

// dhcpOptions are the options of the lease, nil without one.
func (r *Reader) dhcpOptions(ctx context.Context, d *nmDevice, property, iface string) properties {
	path := get[godbus.ObjectPath](d.properties, property)
	if path == "" || path == noObject {
		return nil
	}
	p, err := r.getAll(ctx, path, nmName+"."+iface)
	if err != nil {
		return nil
	}
	return get[properties](p, "Options")
}

// hexOption returns an option if it is bytes in hexadecimal, joined by colons; "" otherwise.
func hexOption(options properties, name string) string {
	text := get[string](options, name)
	for _, b := range strings.Split(text, ":") {
		if _, err := hex.DecodeString(b); err != nil || len(b) != 2 {
			return ""
		}
	}
	return text
}
