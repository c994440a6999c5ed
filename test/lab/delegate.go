package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// RoutePrefix has the site's router send a prefix, as one that it delegated, to an address on the LAN, instead of where it sent it before; the
// routers take packets from it, and the internet sends them there unless they are unique local. At a WWAN the way is the laptop's whatever via is.
func (s *Site) RoutePrefix(ctx context.Context, p netip.Prefix, via netip.Addr) error {
	if err := s.routePrefix(ctx, p.Masked(), via); err != nil {
		return fmt.Errorf("cannot route %q at site %q: %w", p, s.Name, err)
	}
	return nil
}

func (s *Site) routePrefix(ctx context.Context, p netip.Prefix, via netip.Addr) error {
	lan, err := s.Router.nl.LinkByName(lanName)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: lan.Attrs().Index, Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if !s.Options.WWAN {
		route.Gw = via.AsSlice()
	}
	if err := s.Router.nl.RouteReplace(route); err != nil {
		return err
	}
	s.mu.Lock()
	known, routers := s.owners[p] != nil, slices.Clone(s.routers)
	if !known {
		s.owners[p] = routers[0]
	}
	s.mu.Unlock()
	if known {
		return nil
	}
	for _, r := range routers {
		if err := s.admit(ctx, r.Host, p); err != nil {
			return err
		}
	}
	if p.Addr().IsPrivate() {
		return nil
	}
	return s.lab.Internet.route(p, s.index)
}
