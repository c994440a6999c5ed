package uplink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// presence is how the host is on line by an interface, as far as it can be expected to come back by another:
// by the kernel's account.
type presence struct {
	// addresses are those of global scope that last: neither temporary (RFC 8981) nor tentative.
	addresses []netip.Prefix
	// forever are those among them without a lifetime, which somebody may have added by hand.
	forever []netip.Prefix
	// local is its first link-local IPv6 address.
	local netip.Addr
	// advertised is the first address made by SLAAC.
	advertised netip.Addr
	// default4 and default6 tell whether it has default routes.
	default4, default6 bool
}

// presenceOf reads it; that of an interface that isn't there is empty.
func presenceOf(ifname string) (p presence, err error) {
	link, err := netlink.LinkByName(ifname)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("cannot read interface %q: %w", ifname, err)
	}
	addresses, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return p, fmt.Errorf("cannot read addresses of %q: %w", ifname, err)
	}
	for _, a := range addresses {
		ip, _ := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		bits, _ := a.Mask.Size()
		switch {
		case a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED|unix.IFA_F_DEPRECATED) != 0:
		case ip.Is6() && ip.IsLinkLocalUnicast():
			if !p.local.IsValid() {
				p.local = ip
			}
		case a.Scope != unix.RT_SCOPE_UNIVERSE || ip.Is6() && a.Flags&unix.IFA_F_TEMPORARY != 0:
		default:
			p.addresses = append(p.addresses, netip.PrefixFrom(ip, bits))
			if a.Flags&unix.IFA_F_PERMANENT != 0 {
				p.forever = append(p.forever, netip.PrefixFrom(ip, bits))
			}
			if ip.Is6() && bits == 64 && a.Flags&unix.IFA_F_PERMANENT == 0 && !p.advertised.IsValid() {
				p.advertised = ip
			}
		}
	}
	for family, has := range map[int]*bool{netlink.FAMILY_V4: &p.default4, netlink.FAMILY_V6: &p.default6} {
		routes, err := whole(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: link.Attrs().Index, Table: unix.RT_TABLE_MAIN},
				netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return p, fmt.Errorf("cannot read routes of %q: %w", ifname, err)
		}
		for _, route := range routes {
			isDefault := route.Dst == nil || route.Dst.IP.IsUnspecified() && isAll(route.Dst)
			*has = *has || isDefault && route.Protocol != unix.RTPROT_BOOT // which is by hand
		}
	}
	return p, nil
}

// configured is what NetworkManager can be expected to bring back: without the addresses that are neither
// the profile's nor leased.
func (p presence) configured(profile settings, lease netip.Addr) presence {
	own := map[netip.Addr]bool{lease: true}
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, a := range decodePrefixes(get[[]properties](profile[family], "address-data"), "address") {
			own[a.Addr()] = true
		}
	}
	p.addresses = slices.DeleteFunc(slices.Clone(p.addresses), func(a netip.Prefix) bool {
		return slices.Contains(p.forever, a) && !own[a.Addr()]
	})
	return p
}

// whole takes a dump again that a change interrupted.
func whole[T any](dump func() ([]T, error)) (list []T, err error) {
	for range 10 {
		if list, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return list, err
}

func isAll(n *net.IPNet) bool {
	ones, _ := n.Mask.Size()
	return ones == 0
}

// lacks says in words what of the family is not in have, "" if all is.
func (p presence) lacks(have presence, is6 bool) string {
	var missing []string
	for _, a := range p.addresses {
		if a.Addr().Is6() == is6 && !slices.Contains(have.addresses, a) {
			missing = append(missing, a.String())
		}
	}
	family, want, got := "IPv4", p.default4, have.default4
	if is6 {
		family, want, got = "IPv6", p.default6, have.default6
	}
	switch {
	case len(missing) > 0 && !slices.ContainsFunc(have.addresses, func(a netip.Prefix) bool { return a.Addr().Is6() == is6 }):
		return "no " + family + " address"
	case len(missing) > 0:
		return "address " + strings.Join(missing, ", ") + " is not back"
	case want && !got:
		return "no " + family + " default route"
	}
	return ""
}

// has4 tells whether the host is on line by IPv4.
func (p presence) has4() bool {
	return p.default4 || slices.ContainsFunc(p.addresses, func(a netip.Prefix) bool { return a.Addr().Is4() })
}

// hastenDAD lets an interface use IPv6 addresses without asking first whether somebody else
// has them, until restore is called: they are those that the host had on this very link a moment ago,
// and asking takes a second or two, for link-local and global addresses in turn.
func hastenDAD(ifname string) (restore func()) {
	var undo []func()
	// Zero transmissions alone leave the random delay before them (RFC 4862 5.4.2); accept_dad alone
	// doesn't count where it is set for all interfaces.
	for _, key := range []string{"accept_dad", "dad_transmits"} {
		path := filepath.Join("/proc/sys/net/ipv6/conf", ifname, key)
		before, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte("0"), 0)
		}
		if err != nil { // no IPv6, or not ours to write: then it takes longer
			continue
		}
		undo = append(undo, func() {
			_ = os.WriteFile(path, before, 0) // the interface may be gone
		})
	}
	return func() {
		for _, f := range undo {
			f()
		}
	}
}
