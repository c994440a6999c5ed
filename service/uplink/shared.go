package uplink

import (
	"fmt"
	"slices"

	"gangway/service/vnet"
)

const (
	// sharedFromKey marks the two profiles that Share makes, in their setting "user": its value is
	// the UUID of the profile that they stand in for.
	sharedFromKey = "org.gangway.shared-from"

	typeEthernet = "802-3-ethernet"
	typeBridge   = "bridge"
)

// share is a bridge that Share made, by its profiles.
type share struct {
	bridge, port string // interfaces
	// bridgeUUID and portUUID are those of our profiles.
	bridgeUUID, portUUID string
	// original and originalID are UUID and id of the profile before; the id is "" if that is gone.
	original, originalID string
}

// sharesOf finds the pairs of profiles that Share made. Half a pair is none.
func sharesOf(list []profile) []share {
	var out []share
	for _, b := range list {
		if b.sharedFrom == "" || b.kind != typeBridge {
			continue
		}
		i := slices.IndexFunc(list, func(p profile) bool { return p.sharedFrom != "" && p.master == b.uuid })
		if i < 0 {
			continue
		}
		s := share{bridge: b.ifname, port: list[i].ifname, bridgeUUID: b.uuid, portUUID: list[i].uuid, original: b.sharedFrom}
		if i := slices.IndexFunc(list, func(p profile) bool { return p.uuid == b.sharedFrom }); i >= 0 {
			s.originalID = list[i].id
		}
		out = append(out, s)
	}
	return out
}

// sharedFrom returns the UUID of the profile of which Share made the bridge, "" for any other link.
func sharedFrom(c *candidate, shares []share) string {
	for _, s := range shares {
		if c.link.Kind == typeBridge && c.link.Name == s.bridge && (c.foreign || c.active.uuid == s.bridgeUUID) {
			return s.original
		}
	}
	return ""
}

// sharedPorts returns the physical ports of the bridges that Share made.
func sharedPorts(pic *picture, s *survey) []vnet.Uplink {
	var out []vnet.Uplink
	for _, sh := range pic.shares {
		l, ok := s.names[sh.port]
		if !ok || s.links[l.Master].Name != sh.bridge {
			continue
		}
		u := vnet.Uplink{
			Interface: l.Name, Index: l.Index, MTU: l.MTU, Kind: vnet.Ethernet, Bridge: sh.bridge,
			Reason:  "is a port of " + sh.bridge,
			Metered: "unknown", Connectivity: "unknown",
		}
		if sh.originalID != "" {
			u.Connection, u.ConnectionUUID = sh.originalID, sh.original
		}
		out = append(out, u)
	}
	return out
}

// unshareable says in one sentence why an uplink can't be made a bridge, "" if it can or is one.
func unshareable(c *candidate, u *vnet.Uplink, pic *picture) string {
	switch u.Kind {
	case vnet.BridgeKind:
		return ""
	case vnet.WiFi:
		return "Wi-Fi: an access point takes frames from the station's own address only"
	case vnet.Ethernet:
	default:
		return fmt.Sprintf("only an Ethernet interface can be made a bridge, and %s is of kind %s", u.Interface, u.Kind)
	}
	switch {
	case c.link.Type != 1 || c.link.Kind != "" && c.link.Kind != "veth":
		return fmt.Sprintf("only an Ethernet interface can be made a bridge, and %s is made of another interface", u.Interface)
	case c.link.Master != 0:
		return fmt.Sprintf("%s is a port of another interface already", u.Interface)
	case !pic.nm:
		return pic.why
	case c.foreign:
		return "NetworkManager does not configure " + u.Interface
	}
	i := slices.IndexFunc(pic.profiles, func(p profile) bool { return p.uuid == c.active.uuid })
	if i < 0 {
		return "" // not read yet, or one that NetworkManager made itself
	}
	return unshareableProfile(pic.profiles[i])
}

// unshareableProfile says why the interface of a profile can't be made a bridge, "" if it can.
func unshareableProfile(p profile) string {
	switch {
	case p.kind == "pppoe":
		return "PPPoE: the host's IP goes by a PPP link above the Ethernet"
	case p.kind != typeEthernet:
		return fmt.Sprintf("only a profile of type %s can be made one of a bridge, and %q is of type %s", typeEthernet, p.id, p.kind)
	case p.authenticated:
		return "802.1X authenticates this interface's own address"
	case p.master != "":
		return "it is a port of another interface already"
	}
	return ""
}
