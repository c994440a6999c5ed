package dbus

import (
	"net"
	"net/netip"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

var networkMethods = map[string]method{
	"Start":         {check: checkNetwork, run: startNetwork},
	"Stop":          {check: checkNetwork, run: stopNetwork},
	"Delete":        {check: checkNetwork, run: deleteNetwork},
	"Update":        {check: checkUpdate, run: updateNetwork},
	"Attach":        {check: checkAttach, run: attach},
	"Detach":        {check: checkDetach, run: detach},
	"OpenTap":       {check: checkOpenTap, run: unsupported("opening a tap")},
	"GetLeases":     {read: getLeases},
	"AddForward":    {check: checkAddForward, run: unsupported("forwarding ports")},
	"RemoveForward": {check: checkNetwork, run: unsupported("forwarding ports")},
	"GetForwards":   {read: unsupported("forwarding ports")},
	"GetPorts":      {fetch: getPorts},
}

func networkProperties(s *vnet.Snapshot, n *vnet.NetworkState) variants {
	return variants{
		"Name":         textVariant(n.Name),
		"Settings":     settingsVariant(n.Settings.Values()),
		"State":        textVariant(n.State),
		"StateReason":  textVariant(n.Reason),
		"Bridge":       textVariant(n.Bridge),
		"Uplink":       godbus.MakeVariant(knownUplink(s, n.Uplink)),
		"Subnet":       godbus.MakeVariant(prefixText(n.Subnet)),
		"Address":      godbus.MakeVariant(prefixText(n.Address)),
		"IPv4State":    textVariant(n.IPv4State),
		"IPv4Reason":   textVariant(n.IPv4Reason),
		"IPv6State":    textVariant(n.IPv6State),
		"IPv6Reason":   textVariant(n.IPv6Reason),
		"IPv6Prefixes": texts(n.IPv6Prefixes, prefixText),
		"Nameservers":  texts(n.Nameservers, addrText),
		"PortCount":    godbus.MakeVariant(uint32(len(n.Ports))),
		"LeaseCount":   godbus.MakeVariant(uint32(len(n.Leases))),
	}
}

func checkNetwork(c *call) error {
	c.details["network"] = c.object.name
	return nil
}

func checkUpdate(c *call) error {
	c.details["network"] = c.object.name
	n, ok := c.tree.snapshot.Network(c.object.name)
	if !ok {
		return vnet.Errorf(vnet.NoSuchNetwork, "there is no network %q", c.object.name)
	}
	_, err := n.Settings.Merge(c.values(0))
	return err
}

func checkAttach(c *call) error {
	if err := checkDetach(c); err != nil {
		return err
	}
	return knownOptions(c.values(1))
}

func checkDetach(c *call) error {
	c.details["network"], c.details["interface"] = c.object.name, c.text(0)
	return vnet.ValidateInterfaceName("ifname", c.text(0))
}

func checkOpenTap(c *call) error {
	c.details["network"] = c.object.name
	return knownOptions(c.values(0),
		option{"name", "s", func(key string, v any) error { return vnet.ValidateInterfaceName(key, v.(string)) }},
		option{"vnet-hdr", "b", nil},
		option{"multi-queue", "b", nil},
		option{"mac", "s", func(key string, v any) error {
			// A unicast address: the first byte's lowest bit is the group bit (IEEE 802 8.2.2).
			if mac, err := net.ParseMAC(v.(string)); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
				return vnet.SettingErrorf(key, "%q is not a unicast Ethernet MAC address", v)
			}
			return nil
		}})
}

func checkAddForward(c *call) error {
	c.details["network"] = c.object.name
	port := func(key string, v any) error {
		if v.(uint16) == 0 {
			return vnet.SettingErrorf(key, "0 is not a port")
		}
		return nil
	}
	return knownOptions(c.values(0),
		option{"protocol", "s", func(key string, v any) error {
			if v != "tcp" && v != "udp" {
				return vnet.SettingErrorf(key, "%q is not one of tcp, udp", v)
			}
			return nil
		}},
		option{"listen-port", "q", port},
		option{"listen-address", "s", func(key string, v any) error {
			if _, err := netip.ParseAddr(v.(string)); err != nil && v != "" {
				return vnet.SettingErrorf(key, "%q is not an address", v)
			}
			return nil
		}},
		option{"guest", "s", nil},
		option{"guest-port", "q", port})
}

func startNetwork(c *call) ([]any, error) {
	return nil, c.server.backend.StartNetwork(c.ctx, c.object.name)
}

func stopNetwork(c *call) ([]any, error) {
	return nil, c.server.backend.StopNetwork(c.ctx, c.object.name)
}

func deleteNetwork(c *call) ([]any, error) {
	return nil, c.server.backend.DeleteNetwork(c.ctx, c.object.name)
}

func updateNetwork(c *call) ([]any, error) {
	return nil, c.server.backend.UpdateNetwork(c.ctx, c.object.name, c.values(0))
}

func attach(c *call) ([]any, error) {
	return nil, c.server.backend.Attach(c.ctx, c.object.name, c.text(0), c.values(1), c.uid)
}

func detach(c *call) ([]any, error) {
	return nil, c.server.backend.Detach(c.ctx, c.object.name, c.text(0))
}

func getLeases(c *call) ([]any, error) {
	n, ok := c.tree.snapshot.Network(c.object.name)
	if !ok {
		return nil, vnet.Errorf(vnet.NoSuchNetwork, "there is no network %q", c.object.name)
	}
	leases := make([]variants, 0, len(n.Leases))
	for i := range n.Leases {
		leases = append(leases, leaseValues(&n.Leases[i]))
	}
	return []any{leases}, nil
}

func getPorts(c *call) ([]any, error) {
	list, err := c.server.backend.Ports(c.ctx, c.object.name)
	if err != nil {
		return nil, err
	}
	ports := make([]variants, 0, len(list))
	for i := range list {
		ports = append(ports, portValues(&list[i]))
	}
	return []any{ports}, nil
}
