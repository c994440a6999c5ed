package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Station is a neighbour of the laptop: a machine on a site's LAN, behind the same switch. It answers echoes on EchoPort of all its
// addresses. IPv6 comes from the site's routers.
type Station struct {
	*Machine
	*EchoServer
	Site *Site
	// IPv4 is its static address; invalid where the site has none, and with StationOptions.DHCP.
	IPv4 netip.Addr
}

// StationOptions describes a station.
type StationOptions struct {
	MachineOptions
	// IPv4 is its address, by default a free one of the LAN's lower half. DHCP starts dhcpcd instead.
	IPv4 netip.Addr
	DHCP bool
}

// AddStation adds a station; its name is 1 to 6 letters or digits, unique at the site.
func (s *Site) AddStation(ctx context.Context, name string, o StationOptions) (*Station, error) {
	st, err := s.addStation(ctx, name, o)
	if err != nil {
		return nil, fmt.Errorf("cannot add station %q to site %q: %w", name, s.Name, err)
	}
	return st, nil
}

func (s *Site) addStation(ctx context.Context, name string, o StationOptions) (*Station, error) {
	if !siteName.MatchString(name) {
		return nil, errors.New("want a name of 1 to 6 letters or digits")
	}
	if s.Options.WWAN {
		return nil, errors.New("a WWAN has no LAN")
	}
	st := &Station{Site: s, EchoServer: newEchoServer(), IPv4: o.IPv4}
	s.mu.Lock()
	if s.stations[name] != nil {
		s.mu.Unlock()
		return nil, fs.ErrExist
	}
	s.stations[name] = st
	number := len(s.stations)
	s.mu.Unlock()
	lan, err := s.Router.nl.LinkByName(lanName)
	if err != nil {
		return nil, err
	}
	if st.Machine, err = s.lab.newMachine("station-"+s.Name+"-"+name, "station/"+s.Name+"-"+name, mac(5, s.index<<8|number), o.MachineOptions); err != nil {
		return nil, err
	}
	port := "st-" + name
	if err := st.wire(s.Router, port, lan.Attrs().Index, o.MachineOptions); err != nil {
		return nil, err
	}
	if err := s.Router.setUp(port); err != nil {
		return nil, err
	}
	if err := parallel(
		func() error { return s.Router.waitOperUp(ctx, port) },
		func() error { return st.waitOperUp(ctx, GuestInterface) }); err != nil {
		return nil, err
	}
	if err := st.configureIPv4(ctx, o, number); err != nil {
		return nil, err
	}
	st.onClose(st.EchoServer.close)
	return st, st.serve(st.Host, netip.AddrPortFrom(netip.IPv6Unspecified(), EchoPort))
}

func (st *Station) configureIPv4(ctx context.Context, o StationOptions, number int) error {
	s := st.Site
	switch {
	case !s.Options.IPv4.IsValid():
		return nil
	case o.DHCP:
		return st.DHCP(ctx)
	case !st.IPv4.IsValid():
		first, _ := s.pool()
		for st.IPv4 = s.RouterIPv4; number > 0; number-- {
			st.IPv4 = st.IPv4.Next()
		}
		if !st.IPv4.Less(first) {
			return fmt.Errorf("no room below %s in %s: say which address", first, s.Options.IPv4)
		}
	}
	if err := st.addAddress(GuestInterface, netip.PrefixFrom(st.IPv4, s.Options.IPv4.Bits())); err != nil {
		return err
	}
	return st.addRoute(netip.MustParsePrefix("0.0.0.0/0"), s.RouterIPv4)
}

// Echo is the station's echo server at one of its addresses.
func (st *Station) Echo(address netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(address, EchoPort)
}

// ServeEcho starts an echo server on all addresses of a guest, which answers on EchoPort until the lab is closed.
func (g *Guest) ServeEcho() (*EchoServer, error) {
	s := newEchoServer()
	g.onClose(s.close)
	return s, s.serve(g.Host, netip.AddrPortFrom(netip.IPv6Unspecified(), EchoPort))
}

// Unplug cuts the station's cable at the switch, Plug connects it again.
func (st *Station) Unplug() error { return st.setPort(st.Site.Router.nl.LinkSetDown) }
func (st *Station) Plug() error   { return st.setPort(st.Site.Router.nl.LinkSetUp) }

func (st *Station) setPort(edit func(netlink.Link) error) error {
	return st.Site.Router.editLink("st-"+st.Name[len("station-"+st.Site.Name+"-"):], edit)
}
