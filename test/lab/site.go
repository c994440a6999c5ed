package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// Site is an access network: a switch, to which the laptop's uplink is a cable, and a router.
type Site struct {
	Name    string
	Uplink  string // the laptop's interface here
	Options SiteOptions
	Router  *Host
	// RouterIPv4 and RouterIPv6 are the router's addresses on the LAN; its DNS server listens there.
	RouterIPv4, RouterIPv6 netip.Addr
	// SiteAddress is what the site's DNS answers for site.example: 192.0.2.1 at the first site, and so on.
	SiteAddress netip.Addr

	lab     *Lab
	index   int
	dnsmasq *process
}

const (
	lanName  = "lan0"  // the switch, in the router's namespace
	portName = "port0" // the switch's end of the laptop's cable
	wanName  = "wan0"  // the router's way to the internet
)

func (s *Site) start(ctx context.Context) (err error) {
	o := s.Options
	s.RouterIPv4, s.RouterIPv6 = o.RouterIPv4, netip.Addr{}
	if o.IPv6.IsValid() {
		s.RouterIPv6 = o.IPv6.Addr().Next()
	}
	s.SiteAddress = netip.AddrFrom4([4]byte{192, 0, 2, byte(s.index + 1)})
	if s.Router, err = s.lab.newHost("router-" + s.Name); err != nil {
		return err
	}
	for key, value := range map[string]string{
		"net.ipv6.conf.default.disable_ipv6": "1", // the switch's ports are no stations
		// An RA must come from a link-local address (RFC 4861 6.1.2), so the router's must not wait for DAD.
		"net.ipv6.conf.default.accept_dad": "0", "net.ipv6.conf.default.dad_transmits": "0",
		"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0",
		// The filter must see what is routed, not what is switched.
		"net.bridge.bridge-nf-call-iptables": "0", "net.bridge.bridge-nf-call-ip6tables": "0", "net.bridge.bridge-nf-call-arptables": "0",
	} {
		if err := s.Router.Sysctl(key, value); err != nil && !(strings.HasPrefix(key, "net.bridge.") && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	if err := s.buildLAN(); err != nil {
		return err
	}
	if err := s.filter(ctx); err != nil {
		return err
	}
	if err := s.lab.Internet.connect(s); err != nil {
		return err
	}
	if err := s.serve(ctx); err != nil {
		return err
	}
	if o.Unplugged {
		return nil
	}
	if err := s.Plug(); err != nil {
		return err
	}
	if err := s.lab.Laptop.setUp(s.Uplink); err != nil {
		return err
	}
	// Both ends drop what is sent before the kernel's link watch has noticed the carrier.
	return parallel(
		func() error { return s.Router.waitOperUp(ctx, portName) },
		func() error { return s.lab.Laptop.waitOperUp(ctx, s.Uplink) })
}

// buildLAN makes the switch with the laptop's cable, still unplugged at the switch's end.
func (s *Site) buildLAN() error {
	no := false
	r := s.Router
	attrs := netlink.NewLinkAttrs()
	attrs.Name = lanName
	attrs.HardwareAddr = mac(1, s.index)
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &no}
	if err := r.nl.LinkAdd(bridge); err != nil {
		return fmt.Errorf("cannot add switch of site %q: %w", s.Name, err)
	}
	port := netlink.NewLinkAttrs()
	port.Name, port.MasterIndex = portName, bridge.Index
	if err := r.nl.LinkAdd(&netlink.Veth{LinkAttrs: port, PeerName: s.Uplink, PeerNamespace: netlink.NsFd(int(s.lab.Laptop.net.Fd())), PeerHardwareAddr: mac(2, s.index)}); err != nil {
		return fmt.Errorf("cannot add uplink %q: %w", s.Uplink, err)
	}
	// A second, internal cable keeps the router's side in service while the laptop's is out.
	keep := netlink.NewLinkAttrs()
	keep.Name, keep.MasterIndex = "keep0", bridge.Index
	if err := r.nl.LinkAdd(&netlink.Veth{LinkAttrs: keep, PeerName: "keep1"}); err != nil {
		return fmt.Errorf("cannot add switch of site %q: %w", s.Name, err)
	}
	if err := r.Sysctl("net.ipv6.conf."+lanName+".disable_ipv6", "0"); err != nil {
		return err
	}
	for _, name := range []string{"keep0", "keep1", lanName} {
		if err := r.setUp(name); err != nil {
			return err
		}
	}
	if s.RouterIPv4.IsValid() {
		if err := r.addAddress(lanName, netip.PrefixFrom(s.RouterIPv4, s.Options.IPv4.Bits())); err != nil {
			return err
		}
	}
	if s.RouterIPv6.IsValid() {
		return r.addAddress(lanName, netip.PrefixFrom(s.RouterIPv6, 64))
	}
	return nil
}

// mac is a locally administered address: kind 1 router, 2 uplink, 3 guest.
func mac(kind, n int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x67, 0x77, byte(kind), byte(n >> 8), byte(n)}
}

// Unplug cuts the laptop's cable at the switch: the laptop loses carrier.
func (s *Site) Unplug() error { return s.Router.editLink(portName, s.Router.nl.LinkSetDown) }

// Plug connects the laptop's cable again.
func (s *Site) Plug() error { return s.Router.setUp(portName) }

// DNS is the router's DNS server, by IPv4 where the site has it.
func (s *Site) DNS() netip.AddrPort {
	if s.RouterIPv4.IsValid() {
		return netip.AddrPortFrom(s.RouterIPv4, 53)
	}
	return netip.AddrPortFrom(s.RouterIPv6, 53)
}

// serve starts the router's dnsmasq and returns when it answers.
func (s *Site) serve(ctx context.Context) (err error) {
	dir := filepath.Join(s.lab.dir, "router")
	args := []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-daemon", "--user=root",
		"--interface=" + lanName, "--except-interface=lo", "--bind-interfaces", "--no-ping", "--dhcp-authoritative", "--log-queries=extra",
		"--dhcp-leasefile=" + filepath.Join(dir, s.Name+".leases"), "--pid-file=",
		"--local=/example/", "--host-record=site.example," + s.SiteAddress.String(), "--txt-record=site.example," + s.Name,
		"--host-record=internet.example," + InternetIPv4.String() + "," + InternetIPv6.String()}
	if s.RouterIPv4.IsValid() {
		first, last := s.pool()
		args = append(args, fmt.Sprintf("--dhcp-range=%s,%s,1h", first, last))
	}
	if s.RouterIPv6.IsValid() {
		args = append(args, "--enable-ra", fmt.Sprintf("--dhcp-range=%s,ra-only,64,1h", s.Options.IPv6.Addr()))
	}
	if s.dnsmasq, err = s.lab.spawn(s.Router, "router-"+s.Name, args...); err != nil {
		return err
	}
	err = poll(ctx, func() (bool, error) {
		if err := s.dnsmasq.alive(); err != nil {
			return false, err
		}
		_, err := s.Router.Query(ctx, s.DNS(), "ready.site.example", TypeA)
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("cannot start DHCP and DNS of site %q: %w", s.Name, err)
	}
	return nil
}

// pool is the upper half of the LAN without the broadcast address, and without the router's where that is at an end.
func (s *Site) pool() (first, last netip.Addr) {
	base := s.Options.IPv4.Addr().As4()
	network, size := binary.BigEndian.Uint32(base[:]), uint32(1)<<(32-s.Options.IPv4.Bits())
	at := func(n uint32) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, network+n)))
	}
	if first = at(size / 2); first == s.RouterIPv4 {
		first = first.Next()
	}
	if last = at(size - 2); last == s.RouterIPv4 {
		last = last.Prev()
	}
	return first, last
}
