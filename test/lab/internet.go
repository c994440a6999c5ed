package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

var (
	// InternetIPv4 and InternetIPv6 are the internet host's addresses, from documentation prefixes (RFC 5737, RFC 3849).
	InternetIPv4 = netip.MustParseAddr("198.51.100.10")
	InternetIPv6 = netip.MustParseAddr("2001:db8:ffff::10")
	// EchoIPv4 and EchoIPv6 are its echo servers, UDP and TCP. A UDP reply is the request and, behind it,
	// the sender as the server saw it: 16 bytes of address, IPv4 mapped, and 2 of port.
	EchoIPv4 = netip.AddrPortFrom(InternetIPv4, 7)
	EchoIPv6 = netip.AddrPortFrom(InternetIPv6, 7)
)

// Internet is the host beyond the sites' routers.
type Internet struct {
	*Host
	*EchoServer
}

func (n *Internet) start(l *Lab) (err error) {
	if n.Host, err = l.newHost("internet"); err != nil {
		return err
	}
	// Its lines are nobody else's: without DAD they are in service at once.
	if err := n.sysctls(map[string]string{"net.ipv6.conf.default.accept_dad": "0", "net.ipv6.conf.default.dad_transmits": "0"}); err != nil {
		return err
	}
	n.EchoServer = newEchoServer()
	for _, echo := range []netip.AddrPort{EchoIPv4, EchoIPv6} {
		if err := n.addAddress("lo", netip.PrefixFrom(echo.Addr(), echo.Addr().BitLen())); err != nil {
			return err
		}
		if err := n.serve(n.Host, echo); err != nil {
			return err
		}
	}
	return nil
}

// connect lays the line between a router and the internet host, and the router's default routes of the families. index, 0 to 63, is the
// router's in the lab.
func (n *Internet) connect(r *Host, name string, index int, ipv4, ipv6 bool) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := n.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: wanName, PeerNamespace: netlink.NsFd(int(r.net.Fd()))}); err != nil {
		return fmt.Errorf("cannot connect %q: %w", r.Name, err)
	}
	if err := n.setUp(name); err != nil {
		return err
	}
	if err := r.Sysctl("net.ipv6.conf."+wanName+".disable_ipv6", "0"); err != nil {
		return err
	}
	if err := r.setUp(wanName); err != nil {
		return err
	}
	for _, family := range []struct {
		wanted     bool
		bits       int
		everywhere string
	}{{ipv4, 30, "0.0.0.0/0"}, {ipv6, 64, "::/0"}} {
		if !family.wanted {
			continue
		}
		everywhere := netip.MustParsePrefix(family.everywhere)
		here, there := lineEnds(index, everywhere.Addr().Is6())
		if err := n.addAddress(name, netip.PrefixFrom(here, family.bits)); err != nil {
			return err
		}
		if err := r.addAddress(wanName, netip.PrefixFrom(there, family.bits)); err != nil {
			return err
		}
		if err := r.addRoute(everywhere, here); err != nil {
			return err
		}
	}
	return nil
}

// newLine is the number of a line to the internet that is none of a site's own router.
func (l *Lab) newLine() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := 32 + l.lines
	if line > 63 {
		return 0, errors.New("there are 32 further lines to the internet already")
	}
	l.lines++
	return line, nil
}

// lineEnds are the addresses of a router's line to the internet: the internet's and the router's.
func lineEnds(index int, ipv6 bool) (here, there netip.Addr) {
	if ipv6 {
		here = netip.MustParseAddr(fmt.Sprintf("2001:db8:ffff:%x::1", index+1))
	} else {
		here = netip.AddrFrom4([4]byte{203, 0, 113, byte(4*index + 1)})
	}
	return here, here.Next()
}

// route sends a LAN's packets to a router.
func (n *Internet) route(lan netip.Prefix, index int) error {
	_, there := lineEnds(index, lan.Addr().Is6())
	return n.addRoute(lan, there)
}
