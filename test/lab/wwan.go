package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// A WWAN is a site without a link layer: the laptop's interface is a TUN device, as a modem's is without being one, and the site's router
// the carrier's gateway. The laptop has static addresses, as the modem tells them, and the whole /64 (RFC 6459 5.2).

// completeWWAN rejects what a WWAN hasn't.
func (s *SiteOptions) completeWWAN() error {
	var err error
	switch {
	case !s.WWAN:
	case len(s.More) > 0 || s.Bridge != "" || s.HeedCarrier || s.WiFi:
		err = errors.New("it has one interface, and no link layer")
	case s.RA != nil || s.DHCPv6:
		err = errors.New("nobody advertises there")
	}
	if err != nil {
		return fmt.Errorf("cannot make site %q a WWAN: %w", s.Name, err)
	}
	return nil
}

// wwanLinkLocal is the gateway's link-local address, unless Options.RouterLinkLocal says otherwise.
var wwanLinkLocal = netip.MustParseAddr("fe80::1")

// given are the addresses that the modem tells, with the gateways; invalid for a family that the site hasn't.
func (s *SiteOptions) given() (v4, v6 netip.Prefix, gateway4, gateway6 netip.Addr) {
	if s.IPv4.IsValid() {
		gateway4 = s.RouterIPv4
		own := gateway4.Next()
		if !s.IPv4.Contains(own.Next()) { // the last is for broadcasts
			own = gateway4.Prev()
		}
		v4 = netip.PrefixFrom(own, s.IPv4.Bits())
	}
	if s.IPv6.IsValid() {
		gateway6 = s.IPv6.Addr().Next()
		own := s.IPv6.Addr().As16()
		own[8], own[15] = 0x40, 2
		v6 = netip.PrefixFrom(netip.AddrFrom16(own), 64)
	}
	return v4, v6, gateway4, gateway6
}

// wwanProfile renders NetworkManager's profile of the interface.
func (s *SiteOptions) wwanProfile(number int) string {
	v4, v6, gateway4, gateway6 := s.given()
	text := fmt.Sprintf(nmWWAN, s.Uplink, number)
	for _, family := range []struct {
		name    string
		address netip.Prefix
		gateway netip.Addr
	}{{"ipv4", v4, gateway4}, {"ipv6", v6, gateway6}} {
		text += "[" + family.name + "]\n"
		if !family.address.IsValid() {
			text += "method=disabled\n"
			continue
		}
		if family.name == "ipv6" { // there is no MAC to make the link-local address of
			text += "addr-gen-mode=stable-privacy\n"
		}
		text += fmt.Sprintf("method=manual\naddress1=%s,%s\ndns=%s;\nroute-metric=%d\n", family.address, family.gateway, family.gateway, s.Metric)
	}
	return text + s.Profile + "\n"
}

const nmWWAN = `[connection]
id=%[1]s
uuid=67616e67-7761-4792-ad6c-6162000000%02[2]x
type=tun
interface-name=%[1]s
autoconnect-retries=0
[tun]
mode=1
vnet-hdr=true
`

// buildWWAN makes the gateway and the line to the laptop.
func (s *Site) buildWWAN() error {
	r, c := s.Router, s.Cables[0]
	c.Port = lanName
	if err := c.layTunnel(); err != nil {
		return err
	}
	linkLocal := wwanLinkLocal
	if s.Options.RouterLinkLocal.IsValid() {
		linkLocal = s.Options.RouterLinkLocal
	}
	return s.raiseLAN(&Router{Host: r, Site: s, Interface: lanName, LinkLocal: linkLocal, line: s.index})
}

// layTunnel makes the line, without carrier.
func (c *Cable) layTunnel() (err error) {
	if c.line, err = newTunnel(c.Site.lab.Laptop, c.Options.Name, c.Site.Router, c.Port); err != nil {
		return fmt.Errorf("cannot add uplink %q: %w", c.Options.Name, err)
	}
	return c.line.setCarrier(false)
}

// Hangup ends the connection to a WWAN as ModemManager does when the service is lost: NetworkManager takes addresses and routes away. It
// doesn't of itself when the interface loses carrier (Unplug), but stays connected.
func (s *Site) Hangup(ctx context.Context) error {
	_, err := s.lab.NM.Cli(ctx, "device", "disconnect", s.Uplink)
	return err
}

// Dial makes the connection again.
func (s *Site) Dial(ctx context.Context) error {
	_, err := s.lab.NM.Cli(ctx, "connection", "up", s.Uplink)
	return err
}
