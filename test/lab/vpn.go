package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// VPNStyle is how a VPN draws all traffic into its tunnel.
type VPNStyle string

const (
	// VPNMetric adds default routes of metric 50, as NetworkManager does.
	VPNMetric VPNStyle = "metric"
	// VPNHalves adds two routes of half the Internet each, as OpenVPN does (redirect-gateway def1).
	VPNHalves VPNStyle = "halves"
	// VPNRules adds a default route in a table of its own and policy rules that send everybody there for whom the main table has but a
	// default route, as wg-quick does; without a preference, so that the kernel puts them before all rules but the first.
	VPNRules VPNStyle = "rules"
)

// VPNOptions describes a VPN.
type VPNOptions struct {
	// Name is the tunnel's on the laptop, 1 to 11 bytes.
	Name string
	// IPv4 and IPv6 are the laptop's addresses in the tunnel with their subnets, whose first address is the provider's; or, as a /32 or a
	// /128, alone. An invalid one means that the VPN hasn't that family.
	IPv4, IPv6 netip.Prefix
	// Style is VPNMetric if empty.
	Style VPNStyle
	// MTU is the tunnel's, in bytes; 0 is 1420.
	MTU int
}

// VPN is a full tunnel from the laptop to a provider, who translates its customers' addresses to its own. What carries the tunnel isn't
// there: it takes no way through any site, and needs none. Its methods are not for concurrent use.
type VPN struct {
	Options VPNOptions
	// Provider is the tunnel's other end; its interface there is VPNInterface.
	Provider *Host
	// Outside4 and Outside6 are what the internet sees; invalid for a family that the VPN hasn't.
	Outside4, Outside6 netip.Addr

	lab  *Lab
	line *tunnel
	up   []func() error // take away what Up has added, the last first
}

// VPNInterface is the name of the provider's end of the tunnel.
const VPNInterface = "tun0"

// StartVPN lays a tunnel. The laptop has its addresses when it returns, but no routes through it until Up.
func (l *Lab) StartVPN(ctx context.Context, o VPNOptions) (*VPN, error) {
	v := &VPN{Options: o, lab: l}
	v.Options.Style, v.Options.MTU = cmp.Or(o.Style, VPNMetric), cmp.Or(o.MTU, 1420)
	if err := v.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start VPN %q: %w", o.Name, err), v.Close())
	}
	return v, nil
}

func (v *VPN) start(ctx context.Context) (err error) {
	l, o := v.lab, v.Options
	switch {
	case o.Name == "" || len(o.Name) > 11:
		return errors.New("want a name of 1 to 11 bytes")
	case !slices.Contains([]VPNStyle{VPNMetric, VPNHalves, VPNRules}, o.Style):
		return fmt.Errorf("style %q is none", o.Style)
	}
	line, err := l.newLine()
	if err != nil {
		return err
	}
	if v.Provider, err = l.newHost("vpn-" + o.Name); err != nil {
		return err
	}
	if err := asRouter(v.Provider); err != nil {
		return err
	}
	if err := l.Internet.connect(v.Provider, "to-"+o.Name, line, o.IPv4.IsValid(), o.IPv6.IsValid()); err != nil {
		return err
	}
	nat := "table inet vpn { chain out { type nat hook postrouting priority 100; oifname " + wanName + " masquerade; }; }"
	if _, err := v.Provider.RunInput(ctx, nat, "nft", "-f", "-"); err != nil {
		return err
	}
	if v.line, err = newTunnel(l.Laptop, o.Name, v.Provider, VPNInterface); err != nil {
		return err
	}
	if err := v.Provider.Sysctl("net.ipv6.conf."+VPNInterface+".disable_ipv6", "0"); err != nil {
		return err
	}
	for _, p := range v.addresses() {
		outside := &v.Outside4
		if p.Addr().Is6() {
			outside = &v.Outside6
		}
		_, *outside = lineEnds(line, p.Addr().Is6())
		if err := l.Laptop.addAddress(o.Name, p); err != nil {
			return err
		}
		if p.IsSingleIP() {
			continue
		}
		if err := v.Provider.addAddress(VPNInterface, netip.PrefixFrom(p.Masked().Addr().Next(), p.Bits())); err != nil {
			return err
		}
	}
	for _, end := range []struct {
		host *Host
		name string
	}{{v.Provider, VPNInterface}, {l.Laptop, o.Name}} {
		if err := end.host.editLink(end.name, func(link netlink.Link) error { return end.host.nl.LinkSetMTU(link, v.Options.MTU) }); err != nil {
			return err
		}
		if err := end.host.setUp(end.name); err != nil {
			return err
		}
	}
	return v.routeBack()
}

// routeBack has the provider send what is for the laptop's single addresses into the tunnel; for those with a subnet, its own address does.
func (v *VPN) routeBack() error {
	for _, p := range v.addresses() {
		if !p.IsSingleIP() {
			continue
		}
		route := func(link netlink.Link) error {
			return v.Provider.nl.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Bits())}})
		}
		if err := v.Provider.editLink(VPNInterface, route); err != nil {
			return err
		}
	}
	return nil
}

// addresses are the laptop's, of the families that the VPN has.
func (v *VPN) addresses() []netip.Prefix {
	return slices.DeleteFunc([]netip.Prefix{v.Options.IPv4, v.Options.IPv6}, func(p netip.Prefix) bool { return !p.IsValid() })
}

// Up draws all traffic of the VPN's families into the tunnel. The time is that when the kernel had acknowledged the last route: from then
// on all of it is effective, and none before the call.
func (v *VPN) Up() (time.Time, error) {
	if len(v.up) > 0 {
		return time.Time{}, fmt.Errorf("cannot bring VPN %q up: it is", v.Options.Name)
	}
	link, err := v.lab.Laptop.nl.LinkByName(v.Options.Name)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot bring VPN %q up: %w", v.Options.Name, err)
	}
	for _, change := range v.routing(link.Attrs().Index) {
		if err := change.do(); err != nil {
			_, derr := v.Down()
			return time.Time{}, errors.Join(fmt.Errorf("cannot bring VPN %q up: %w", v.Options.Name, err), derr)
		}
		v.up = append(v.up, change.undo)
	}
	return time.Now(), nil
}

// Down undoes Up. The time is that when the kernel had acknowledged the last removal. Down again is harmless.
func (v *VPN) Down() (time.Time, error) {
	var errs []error
	for _, undo := range slices.Backward(v.up) {
		if err := undo(); err != nil {
			errs = append(errs, fmt.Errorf("cannot take VPN %q down: %w", v.Options.Name, err))
		}
	}
	v.up = nil
	return time.Now(), errors.Join(errs...)
}

// Close removes the tunnel, the provider, and first, as every program does that ends in order, the rules; routes go with the interface, in
// one moment. Closing again is harmless.
func (v *VPN) Close() error {
	var errs []error
	if v.Options.Style == VPNRules {
		_, err := v.Down()
		errs = append(errs, err)
	}
	v.up = nil
	if v.line != nil {
		v.line.close()
	}
	if v.Provider != nil {
		errs = append(errs, v.lab.dropHost(v.Provider))
	}
	v.line, v.Provider = nil, nil
	return errors.Join(errs...)
}
