package dbus

import (
	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

var managerMethods = map[string]method{
	"CreateNetwork":     {check: checkCreate, run: createNetwork},
	"NetworkByName":     {read: networkByName},
	"UplinkByInterface": {read: uplinkByInterface},
	"Diagnose":          {read: unsupported("finding out what keeps guests from the outside")},
}

func managerProperties(s *vnet.Snapshot, constant variants) variants {
	networks := make([]godbus.ObjectPath, 0, len(s.Networks))
	for i := range s.Networks {
		networks = append(networks, NetworkPath(s.Networks[i].Name))
	}
	uplinks := make([]godbus.ObjectPath, 0, len(s.Uplinks))
	for i := range s.Uplinks {
		uplinks = append(uplinks, UplinkPath(s.Uplinks[i].Interface))
	}
	return variants{
		"Version":       constant["Version"],
		"Features":      constant["Features"],
		"State":         textVariant(s.State),
		"PrimaryUplink": godbus.MakeVariant(knownUplink(s, s.Primary)),
		"Networks":      godbus.MakeVariant(networks),
		"Uplinks":       godbus.MakeVariant(uplinks),
	}
}

// knownUplink returns the uplink's path, "/" for one that isn't published: a client must
// never be sent to an object that isn't there.
func knownUplink(s *vnet.Snapshot, ifname string) godbus.ObjectPath {
	if _, ok := s.Uplink(ifname); !ok {
		return none
	}
	return UplinkPath(ifname)
}

func checkCreate(c *call) error {
	name := c.text(0)
	if err := vnet.ValidateNetworkName(name); err != nil {
		return err
	}
	if _, exists := c.tree.snapshot.Network(name); exists {
		return vnet.Errorf(vnet.NetworkExists, "network %q exists", name)
	}
	c.details["network"] = name
	_, err := vnet.DefaultSettings(name).Merge(c.values(1))
	return err
}

func createNetwork(c *call) ([]any, error) {
	name := c.text(0)
	if err := c.server.backend.CreateNetwork(c.ctx, name, c.values(1)); err != nil {
		return nil, err
	}
	return []any{NetworkPath(name)}, nil
}

func networkByName(c *call) ([]any, error) {
	name := c.text(0)
	if _, ok := c.tree.snapshot.Network(name); !ok {
		return nil, vnet.Errorf(vnet.NoSuchNetwork, "there is no network %q", name)
	}
	return []any{NetworkPath(name)}, nil
}

func uplinkByInterface(c *call) ([]any, error) {
	ifname := c.text(0)
	if _, ok := c.tree.snapshot.Uplink(ifname); !ok {
		return nil, vnet.Errorf(vnet.NoSuchUplink, "there is no uplink %q", ifname)
	}
	return []any{UplinkPath(ifname)}, nil
}

// unsupported makes the end of a method that this version doesn't have.
func unsupported(what string) func(*call) ([]any, error) {
	return func(*call) ([]any, error) {
		return nil, vnet.Errorf(vnet.NotSupported, "%s is not supported by this version", what)
	}
}
