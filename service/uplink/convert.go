package uplink

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"

	"gangway/service/vnet"
)

// candidate is a link with what NetworkManager says of it.
type candidate struct {
	link vnet.Link
	// dev is nil where NetworkManager has no such device or only looks on.
	dev *device
	// active is the connection that configured it: the device's or a VPN plugin's, nil if neither.
	active *connection
	// foreign: somebody other than NetworkManager configures it, if anybody.
	foreign bool
}

// convert makes the uplinks of what was read, and of which carriers were lost lately.
func convert(pic *picture, k *vnet.Kernel, h holds) vnet.Uplinks {
	s := surveyOf(k)
	out := vnet.Uplinks{Source: SourceRtnetlink, Stub: stubOf(pic.resolv)}
	if pic.nm {
		out.Source = SourceNetworkManager
	}
	egress := pic.egress
	if !pic.probed {
		egress = s.mainEgress()
	}
	foreign := map[string]bool{}
	for _, c := range candidates(pic, &s) {
		if !isUplink(&c, pic, &s, egress) {
			continue
		}
		u := convertOne(&c, pic, &s, h)
		if left := h.recheck(u.Index); left != 0 && (out.Recheck == 0 || left < out.Recheck) {
			out.Recheck = left
		}
		foreign[u.Interface] = c.foreign
		out.List = append(out.List, u)
	}
	byName := func(a, b vnet.Uplink) int { return cmp.Compare(a.Interface, b.Interface) }
	slices.SortFunc(out.List, byName)

	out.Primary = primary(pic, &s, out.List, foreign, egress)
	out.Primary6 = primary6(pic, &s, out.List)
	out.Physical = physical(pic, out.List, out.Primary)
	addResolvConf(&out, pic, foreign)
	out.Upstreams = upstreams(pic.dns, out.Primary)
	out.Reserved = reservations(pic, out.List)
	// Last, for they are no way out: nothing above may choose one.
	out.List = append(out.List, sharedPorts(pic, &s)...)
	slices.SortFunc(out.List, byName)
	return out
}

// candidates pairs each link that may be an uplink with NetworkManager's view of it.
func candidates(pic *picture, s *survey) []candidate {
	devices := map[string]*device{}
	for i := range pic.devices {
		d := &pic.devices[i]
		// A modem and the ppp0 that it made may be two devices of one name: the one
		// that NetworkManager itself configures counts.
		if old := devices[d.name]; old == nil || !isControlled(old) {
			devices[d.name] = d
		}
	}
	plugins := map[int]*connection{}
	for i := range pic.vpns {
		if index := vpnLink(&pic.vpns[i], s); index != 0 {
			plugins[index] = &pic.vpns[i]
		}
	}
	var out []candidate
	for _, l := range s.links {
		if !s.isCandidate(l) {
			continue
		}
		c := candidate{link: l, dev: devices[l.Name], foreign: true}
		switch {
		case plugins[l.Index] != nil:
			c.active, c.foreign = plugins[l.Index], false
		case c.dev != nil && isControlled(c.dev):
			c.active, c.foreign = c.dev.active, false
		}
		out = append(out, c)
	}
	return out
}

// isControlled tells whether NetworkManager configures the device by a profile, rather than
// watch how others do.
func isControlled(d *device) bool {
	return d.active != nil && !d.active.external && d.state > nm.NmDeviceStateUnmanaged
}

// vpnLink finds the interface that a VPN plugin's connection made: NetworkManager names only
// the device below, but the addresses are those of one tunnel. An IPsec VPN by policies
// has none: 0.
func vpnLink(c *connection, s *survey) int {
	for index, l := range s.links {
		if !isTunnel(l) && l.Kind != "ppp" {
			continue
		}
		for _, a := range s.addresses[index] {
			if slices.ContainsFunc(c.ip4.addresses, func(p netip.Prefix) bool { return p.Addr() == a.Prefix.Addr() }) {
				return index
			}
		}
	}
	return 0
}

func isUplink(c *candidate, pic *picture, s *survey, egress int) bool {
	switch {
	case c.active != nil && c.active.vpn:
		return true
	case !c.foreign:
		if _, out := s.mainDefault(c.link.Index); !out && !c.dev.ip4.gateway.IsValid() && isShared(c.active, pic.profiles) {
			return false // with a way out, the profile was edited and isn't in force yet
		}
		switch c.dev.state {
		case nm.NmDeviceStateActivated:
			return true
		case nm.NmDeviceStateIpConfig, nm.NmDeviceStateIpCheck, nm.NmDeviceStateSecondaries:
			return s.hasGlobal4(c.link.Index)
		}
		return false
	case c.dev != nil && c.dev.state > nm.NmDeviceStateUnmanaged && c.dev.active == nil && !isTunnel(c.link):
		// NetworkManager's and not in use: a route that is still there is about to go. A
		// tunnel may be so new that it doesn't know yet that others configure it.
		return false
	}
	return isForeignUplink(c.link, s, egress, pic.egress6)
}

// isShared tells whether the profile makes the interface a downlink, such as a hotspot.
func isShared(active *connection, profiles []profile) bool {
	return slices.ContainsFunc(profiles, func(p profile) bool { return p.shared && p.uuid == active.uuid })
}

func convertOne(c *candidate, pic *picture, s *survey, h holds) vnet.Uplink {
	l := c.link
	u := vnet.Uplink{
		Interface: l.Name, Index: l.Index, MTU: l.MTU,
		Kind:    kindOf(c, pic.hardware),
		Metered: "unknown", Connectivity: "unknown",
	}
	for _, a := range s.addresses[l.Index] {
		if a.Tentative {
			continue
		}
		u.Addresses = append(u.Addresses, a.Prefix)
		// A /128 (DHCPv6) says nothing of the link (RFC 5942 4).
		p := a.Prefix.Masked()
		if p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() && p.Bits() < 128 && !a.Deprecated && !slices.Contains(u.Prefixes, p) {
			u.Prefixes = append(u.Prefixes, p)
		}
	}
	var ip4, ip6 ipConfig
	if !c.foreign {
		u.Connection, u.ConnectionUUID = c.active.id, c.active.uuid
		ip4, ip6 = c.active.ip4, c.active.ip6
		if !c.active.vpn {
			ip4, ip6 = c.dev.ip4, c.dev.ip6
			u.Metered, u.Connectivity = metered(c.dev.metered), connectivity(c.dev.connectivity)
		}
	}
	u.PointToPoint = u.Kind == vnet.WWAN || u.Kind == vnet.PPP || l.PointToPoint && u.Kind != vnet.VPN
	u.Delegated = ip6.delegated
	u.Default4, u.Gateway4, u.Metric4 = default4(&u, ip4, s)
	u.Default6, u.Gateway6, u.Metric6 = default6(&u, ip6, s, pic.egress6)
	if ip6.gateway.IsValid() {
		u.Routers = append(u.Routers, ip6.gateway) // no zone: it is the uplink's
	}
	for _, a := range slices.Concat(ip4.nameservers, ip6.nameservers) {
		if a = zoned(a, l.Name); !slices.Contains(u.Nameservers, a) {
			u.Nameservers = append(u.Nameservers, a)
		}
	}
	u.Reason = unusable(&u, l, s, h.usable)
	u.Usable = u.Reason == ""
	_, u.LostCarrier = h.lost[l.Index]
	u.SharedFrom = sharedFrom(c, pic.shares)
	u.Unshareable = unshareable(c, &u, pic)
	return u
}

// default4 tells whether and where the uplink's IPv4 default route leads. NetworkManager's gateway
// counts before the kernel's: it is some milliseconds ahead. The metric that is in
// force is the kernel's.
func default4(u *vnet.Uplink, ip4 ipConfig, s *survey) (has bool, gateway netip.Addr, metric uint32) {
	find := s.mainDefault
	if u.Kind == vnet.VPN {
		find = s.tunnelDefault
	}
	w, inKernel := find(u.Index)
	has, gateway, metric = inKernel, w.gateway, w.metric
	for _, r := range ip4.routes {
		if r.dst == everything && (r.table == 0 || r.table == tableMain) {
			has, gateway = true, r.nextHop
			if !inKernel {
				metric = r.metric
			}
			break
		}
	}
	if ip4.gateway.IsValid() {
		has, gateway = true, ip4.gateway
	}
	if gateway.IsUnspecified() {
		gateway = netip.Addr{}
	}
	return has, gateway, metric
}

// default6 is default4 for IPv6. A VPN may have its default route in a table of its own: then it is where the
// kernel sends packets.
func default6(u *vnet.Uplink, ip6 ipConfig, s *survey, egress int) (has bool, gateway netip.Addr, metric uint32) {
	w, inKernel := s.default6(u.Index)
	has, gateway, metric = inKernel || u.Kind == vnet.VPN && egress == u.Index, w.gateway, w.metric
	if ip6.gateway.IsValid() {
		has, gateway = true, ip6.gateway
	}
	if gateway.IsUnspecified() {
		gateway = netip.Addr{}
	}
	return has, gateway, metric
}

// unusable says why guests' IPv4 cannot go out by the uplink, "" if it can.
func unusable(u *vnet.Uplink, l vnet.Link, s *survey, held map[int]time.Duration) string {
	_, isHeld := held[l.Index]
	switch {
	case !l.Up:
		return "link is down"
	case !l.Carrier && !isHeld:
		return "no carrier"
	case !s.hasGlobal4(l.Index):
		return "no IPv4 address"
	case !u.Default4:
		return "no IPv4 default route"
	}
	return ""
}

// kindOf prefers what NetworkManager knows: to the kernel many things are Ethernet.
func kindOf(c *candidate, hardware map[string]vnet.UplinkKind) vnet.UplinkKind {
	if c.active != nil && c.active.vpn {
		return vnet.VPN
	}
	if c.dev != nil {
		switch c.dev.kind {
		case nm.NmDeviceTypeEthernet, nm.NmDeviceTypeVeth, nm.NmDeviceTypeMacvlan, nm.NmDeviceTypeMacsec:
			if c.link.Kind == "ppp" { // PPPoE: the device is the Ethernet below
				return vnet.PPP
			}
			return vnet.Ethernet
		case nm.NmDeviceTypeWifi, nm.NmDeviceTypeOlpcMesh, nm.NmDeviceTypeWifiP2p:
			return vnet.WiFi
		case nm.NmDeviceTypeModem, nm.NmDeviceTypeBt, nm.NmDeviceTypeWimax:
			return vnet.WWAN
		case nm.NmDeviceTypePpp, nm.NmDeviceTypeAdsl:
			return vnet.PPP
		case nm.NmDeviceTypeBridge, nm.NmDeviceTypeOvsBridge, nm.NmDeviceTypeOvsInterface:
			return vnet.BridgeKind
		case nm.NmDeviceTypeBond, nm.NmDeviceTypeTeam:
			return vnet.Bond
		case nm.NmDeviceTypeVlan:
			return vnet.VLAN
		case nm.NmDeviceTypeTun:
			if isModem(c.link) {
				return vnet.WWAN
			}
			return vnet.VPN
		case nm.NmDeviceTypeWireguard, nm.NmDeviceTypeIpTunnel:
			return vnet.VPN
		}
	}
	return kernelKind(c.link, hardware)
}

func metered(m nm.NmMetered) string {
	switch m {
	case nm.NmMeteredYes, nm.NmMeteredGuessYes:
		return "yes"
	case nm.NmMeteredNo, nm.NmMeteredGuessNo:
		return "no"
	}
	return "unknown"
}

func connectivity(c nm.NmConnectivity) string {
	switch c {
	case nm.NmConnectivityFull:
		return "full"
	case nm.NmConnectivityLimited:
		return "limited"
	case nm.NmConnectivityPortal:
		return "portal"
	case nm.NmConnectivityNone:
		return "none"
	}
	return "unknown"
}

// zoned gives a link-local IPv6 address the interface that it is meaningless without (RFC 4007
// 11); dnsmasq takes the form fe80::1%eth0, too.
func zoned(a netip.Addr, ifname string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
		return a.WithZone(ifname)
	}
	return a
}
