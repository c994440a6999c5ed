package service

import (
	"context"
	"net/netip"
	"slices"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// MaxNetworks is how many networks there may be; MaxPorts how many ports each may have (a
// bridge of the kernel's has 1023).
const (
	MaxNetworks = 256
	MaxPorts    = 512
)

// checkCreate returns the settings of a network to be, or why it can't be.
func (s *Service) checkCreate(name string, values map[string]any) (vnet.Settings, error) {
	if err := vnet.ValidateNetworkName(name); err != nil {
		return vnet.Settings{}, err
	}
	if _, exists := s.definitions[name]; exists {
		return vnet.Settings{}, vnet.Errorf(vnet.NetworkExists, "network %q exists", name)
	}
	if len(s.definitions) >= MaxNetworks {
		return vnet.Settings{}, vnet.Errorf(vnet.LimitExceeded, "there are %d networks, that is the most", MaxNetworks)
	}
	settings, err := vnet.DefaultSettings(name).Merge(values)
	if err != nil {
		return settings, err
	}
	return settings, s.checkAgainstOthers(name, settings, vnet.Settings{})
}

// checkUpdate returns the settings that the network would have, or why it can't have them.
func (s *Service) checkUpdate(name string, values map[string]any) (vnet.Settings, error) {
	d, err := s.find(name)
	if err != nil {
		return vnet.Settings{}, err
	}
	if d.Problem != nil {
		return vnet.Settings{}, vnet.Errorf(vnet.Failed, "network %q cannot be updated before its file is mended: %v", name, d.Problem)
	}
	settings, err := d.Settings.Merge(values)
	if err != nil {
		return settings, err
	}
	return settings, s.checkAgainstOthers(name, settings, d.Settings)
}

// checkAgainstOthers says what a network's new bridge and fixed subnet would be at odds with.
func (s *Service) checkAgainstOthers(name string, now, before vnet.Settings) error {
	if now.Bridge != "" && now.Bridge != before.Bridge {
		for _, other := range s.names() {
			if other != name && s.definitions[other].Settings.Bridge == now.Bridge {
				return &vnet.Error{Kind: vnet.InUse, Key: "bridge", Message: vnet.SettingErrorf("bridge", "%s is the bridge of network %q", now.Bridge, other).Message}
			}
		}
		if _, exists := s.state.seen.Kernel.LinkByName(now.Bridge); exists {
			return &vnet.Error{Kind: vnet.InUse, Key: "bridge", Message: vnet.SettingErrorf("bridge", "an interface %s exists already", now.Bridge).Message}
		}
	}
	if !now.IPv4Subnet.IsValid() || now.IPv4Subnet == before.IPv4Subnet || now.IPv4Method == "off" {
		return nil
	}
	conflict := func(owner string) error {
		return &vnet.Error{Kind: vnet.SubnetConflict, Key: "ipv4-subnet",
			Message: vnet.SettingErrorf("ipv4-subnet", "%s overlaps %s", now.IPv4Subnet, owner).Message}
	}
	memory := s.rooms.Store.Memory()
	for _, other := range s.names() {
		if other == name {
			continue
		}
		for _, p := range []netip.Prefix{s.definitions[other].Settings.IPv4Subnet, memory.Subnets[other]} {
			if p.IsValid() && p.Overlaps(now.IPv4Subnet) {
				return conflict(p.String() + " of network " + other)
			}
		}
	}
	for _, r := range plan.InUse(&s.state.seen) {
		if r.Prefix.Overlaps(now.IPv4Subnet) {
			return conflict(r.Owner)
		}
	}
	return nil
}

// checkAttach returns the interface that is to be a port, as it is now.
func (s *Service) checkAttach(ctx context.Context, network, ifname string, options map[string]any) (vnet.Link, error) {
	d, err := s.find(network)
	if err != nil {
		return vnet.Link{}, err
	}
	if err := vnet.ValidateInterfaceName("interface", ifname); err != nil {
		return vnet.Link{}, err
	}
	for key := range options {
		return vnet.Link{}, vnet.SettingErrorf(key, "is not an option of Attach")
	}
	if !s.wantsActive(d) {
		return vnet.Link{}, vnet.Errorf(vnet.Failed, "network %q is not running", network)
	}
	k, err := s.rooms.Kernel.Observe(ctx, nil)
	if err != nil {
		return vnet.Link{}, err
	}
	l, exists := k.LinkByName(ifname)
	if !exists {
		return l, vnet.SettingErrorf("interface", "there is no interface %q", ifname)
	}
	bridge, _ := k.LinkByName(d.Settings.Bridge)
	_, ours := plan.OwnerOf(l)
	uplink, isUplink := s.state.seen.Uplinks.Find(ifname)
	switch {
	case l.Loopback || ours || l.Kind == "bridge":
		return l, vnet.SettingErrorf("interface", "%s cannot be a port: it is a bridge or the loopback", ifname)
	case l.Type != 1: // ARPHRD_ETHER
		return l, vnet.SettingErrorf("interface", "%s cannot be a port: it is not an Ethernet interface", ifname)
	case isUplink && (uplink.Default4 || uplink.Connection != ""):
		return l, vnet.Errorf(vnet.InUse, "interface %s is an uplink of the host", ifname)
	case l.Master != 0 && l.Master != bridge.Index:
		master, _ := k.LinkByIndex(l.Master)
		return l, vnet.Errorf(vnet.InUse, "interface %s is a port of %s", ifname, master.Name)
	case len(s.runtime.Ports[network]) >= MaxPorts:
		return l, vnet.Errorf(vnet.LimitExceeded, "network %q has %d ports, that is the most", network, MaxPorts)
	}
	for _, other := range s.names() {
		if other != network && slices.ContainsFunc(s.runtime.Ports[other], func(p vnet.PortRef) bool { return p.Index == l.Index && p.Interface == ifname }) {
			return l, vnet.Errorf(vnet.InUse, "interface %s is a port of network %q", ifname, other)
		}
	}
	for _, a := range k.Addresses {
		if a.Link == l.Index && a.Prefix.Addr().Is4() {
			return l, vnet.Errorf(vnet.InUse, "interface %s has the host's address %s", ifname, a.Prefix)
		}
	}
	return l, nil
}

func (s *Service) checkDetach(network, ifname string) error {
	d, err := s.find(network)
	if err != nil {
		return err
	}
	if err := vnet.ValidateInterfaceName("interface", ifname); err != nil {
		return err
	}
	if slices.ContainsFunc(s.runtime.Ports[network], func(p vnet.PortRef) bool { return p.Interface == ifname }) {
		return nil
	}
	bridge, _ := s.state.seen.Kernel.LinkByName(d.Settings.Bridge)
	if l, exists := s.state.seen.Kernel.LinkByName(ifname); exists && bridge.Index != 0 && l.Master == bridge.Index {
		return nil
	}
	return vnet.SettingErrorf("interface", "%s is not a port of network %q", ifname, network)
}
