package uplink

import (
	nm "github.com/Wifx/gonetworkmanager/v3"

	"gangway/service/vnet"
)

// primary names the interface that carries the host's IPv4 default route, "" for none.
//
// A full-tunnel VPN comes first: NetworkManager's own, which it calls the default although
// its PrimaryConnection is what lies below; then one that it doesn't know of, by where the
// kernel sends packets. Next is PrimaryConnection, right at once, even before its route is there.
// An interface that others configure counts where NetworkManager has no primary, or a worse one.
// Whatever it is, it is in the list.
func primary(pic *picture, s *survey, list []vnet.Uplink, foreign map[string]bool, egress int) string {
	for i := range pic.vpns {
		v := &pic.vpns[i]
		if v.default4 && v.state == nm.NmActiveConnectionStateActivated {
			if name := s.links[vpnLink(v, s)].Name; kindIn(list, name) != "" {
				return name
			}
		}
	}
	for i := range pic.devices {
		d := &pic.devices[i]
		if d.active != nil && d.active.default4 && kindIn(list, d.name) == vnet.VPN {
			return d.name
		}
	}
	out := s.links[egress].Name // "" for 0
	if kind := kindIn(list, out); kind == vnet.VPN || kind == vnet.PPP && foreign[out] {
		return out
	}
	if kindIn(list, pic.primary) != "" {
		// Where both have a route, the kernel has compared the metrics.
		if _, both := s.mainDefault(s.names[pic.primary].Index); both && foreign[out] {
			return out
		}
		return pic.primary
	}
	if foreign[out] {
		return out
	}
	return ""
}

// physical names the best uplink below VPNs: the primary itself if it is no VPN, else what
// NetworkManager says lies below, else the usable one with the lowest metric.
func physical(pic *picture, list []vnet.Uplink, primary string) string {
	if primary == "" || kindIn(list, primary) != vnet.VPN {
		return primary
	}
	below := []string{pic.primary}
	for i := range pic.vpns {
		if v := &pic.vpns[i]; v.default4 {
			below = append(below, v.devices...)
		}
	}
	for _, name := range below {
		if kind := kindIn(list, name); kind != "" && kind != vnet.VPN {
			return name
		}
	}
	var best *vnet.Uplink
	for i := range list {
		u := &list[i]
		if u.Kind == vnet.VPN || !u.Default4 {
			continue
		}
		if best == nil || u.Usable && !best.Usable || u.Usable == best.Usable && u.Metric4 < best.Metric4 {
			best = u
		}
	}
	if best == nil {
		return ""
	}
	return best.Interface
}

// kindIn returns the kind of an uplink of the list, "" if it isn't there.
func kindIn(list []vnet.Uplink, name string) vnet.UplinkKind {
	for i := range list {
		if list[i].Interface == name {
			return list[i].Kind
		}
	}
	return ""
}

// primary6 names the interface of the list that carries the host's IPv6 default route, "" for none. A VPN that
// the kernel sends packets into comes before what NetworkManager calls the default.
func primary6(pic *picture, s *survey, list []vnet.Uplink) string {
	name := s.links[pic.egress6].Name // "" for 0
	if kindIn(list, name) == vnet.VPN {
		return name
	}
	for i := range pic.devices {
		if d := &pic.devices[i]; d.active != nil && d.active.default6 {
			name = d.name
		}
	}
	for i := range pic.vpns {
		if v := &pic.vpns[i]; v.default6 && v.state == nm.NmActiveConnectionStateActivated {
			name = s.links[vpnLink(v, s)].Name
		}
	}
	if kindIn(list, name) == "" {
		return ""
	}
	return name
}
