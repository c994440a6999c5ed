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
	"sync"

	"github.com/vishvananda/netlink"
)

// Site is an access network: a switch, to which the laptop's uplink is a cable, and a router.
type Site struct {
	Name    string
	Uplink  string // the laptop's first interface here
	Options SiteOptions
	Router  *Host    // also has the switch
	Cables  []*Cable // the laptop's, that of Uplink first
	// Interface is what has the addresses of Uplink: the bridge that it is a port of, or itself.
	Interface string
	// RouterIPv4 and RouterIPv6 are the router's addresses on the LAN; its DNS server listens there.
	RouterIPv4, RouterIPv6 netip.Addr
	// SiteAddress is what the site's DNS answers for site.example: 192.0.2.1 at the first site, and so on.
	SiteAddress netip.Addr

	lab     *Lab
	index   int
	dnsmasq *process

	mu       sync.Mutex
	routers  []*Router
	stations map[string]*Station
	owners   map[netip.Prefix]*Router // of all prefixes that were advertised, who was first
}

const (
	lanName = "lan0" // the switch, in the router's namespace
	wanName = "wan0" // the router's way to the internet
)

func newSite(l *Lab, index int) *Site {
	o := l.options.Sites[index]
	s := &Site{Name: o.Name, Uplink: o.Uplink, Options: o, lab: l, index: index, stations: map[string]*Station{}, owners: map[netip.Prefix]*Router{}}
	s.Cables = newCables(s)
	s.Interface = s.Cables[0].Options.Interface()
	return s
}

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
	if err := asRouter(s.Router); err != nil {
		return err
	}
	build := s.buildLAN
	if o.WWAN {
		build = s.buildWWAN
	}
	if err := build(); err != nil {
		return err
	}
	if err := s.filter(ctx, s.Router); err != nil {
		return err
	}
	if o.WiFi {
		if err := s.accessPoint(ctx); err != nil {
			return err
		}
	}
	if err := s.lab.Internet.connect(s.Router, "to-"+s.Name, s.index, o.IPv4.IsValid(), o.IPv6.IsValid()); err != nil {
		return err
	}
	for _, lan := range []netip.Prefix{o.IPv4, o.IPv6} {
		if !lan.IsValid() {
			continue
		}
		if err := s.lab.Internet.route(lan, s.index); err != nil {
			return err
		}
	}
	if err := s.serve(ctx); err != nil {
		return err
	}
	if o.RA != nil && !o.Mute {
		if err := s.IPv6Router().SetRA(ctx, *o.RA); err != nil {
			return err
		}
	}
	var starts []func() error
	for _, c := range s.Cables {
		starts = append(starts, func() error { return c.start(ctx) })
	}
	return parallel(starts...)
}

// asRouter makes a host forward, and its ports no stations.
func asRouter(h *Host) error {
	for key, value := range map[string]string{
		"net.ipv6.conf.default.disable_ipv6": "1", // the switch's ports are no stations
		// An RA must come from a link-local address (RFC 4861 6.1.2), so the router's must not wait for DAD.
		"net.ipv6.conf.default.accept_dad": "0", "net.ipv6.conf.default.dad_transmits": "0",
		"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0",
		// The filter must see what is routed, not what is switched.
		"net.bridge.bridge-nf-call-iptables": "0", "net.bridge.bridge-nf-call-ip6tables": "0", "net.bridge.bridge-nf-call-arptables": "0",
	} {
		if err := h.Sysctl(key, value); err != nil && !(strings.HasPrefix(key, "net.bridge.") && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// buildLAN makes the switch with the laptop's cables, still unplugged at the switch's end.
func (s *Site) buildLAN() error {
	no := false
	r := s.Router
	attrs := netlink.NewLinkAttrs()
	attrs.Name = lanName
	attrs.HardwareAddr = mac(1, s.index)
	if s.Options.RouterMAC != nil {
		attrs.HardwareAddr = s.Options.RouterMAC
	}
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &no}
	if err := r.nl.LinkAdd(bridge); err != nil {
		return fmt.Errorf("cannot add switch of site %q: %w", s.Name, err)
	}
	for _, c := range s.Cables {
		if err := c.lay(bridge.Index); err != nil {
			return err
		}
	}
	// A second, internal cable keeps the router's side in service while the laptop's is out.
	keep := netlink.NewLinkAttrs()
	keep.Name, keep.MasterIndex = "keep0", bridge.Index
	if err := r.nl.LinkAdd(&netlink.Veth{LinkAttrs: keep, PeerName: "keep1"}); err != nil {
		return fmt.Errorf("cannot add switch of site %q: %w", s.Name, err)
	}
	router := &Router{Host: r, Site: s, Interface: lanName, MAC: attrs.HardwareAddr, LinkLocal: s.Options.RouterLinkLocal, line: s.index}
	for _, name := range []string{"keep0", "keep1"} {
		if err := r.setUp(name); err != nil {
			return err
		}
	}
	return s.raiseLAN(router)
}

// raiseLAN gives the site's own router its addresses on the LAN.
func (s *Site) raiseLAN(r *Router) error {
	s.routers = []*Router{r}
	if err := r.raise(); err != nil {
		return err
	}
	if s.RouterIPv4.IsValid() {
		if err := r.addAddress(lanName, netip.PrefixFrom(s.RouterIPv4, s.Options.IPv4.Bits())); err != nil {
			return err
		}
	}
	if s.RouterIPv6.IsValid() {
		s.owners[s.Options.IPv6] = r
		return r.addAddress(lanName, netip.PrefixFrom(s.RouterIPv6, 64))
	}
	return nil
}

// mac is a locally administered address: kind 1 router, 2 uplink, 3 guest, 4 further uplink, 5 station, 6 further router.
func mac(kind, n int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x67, 0x77, byte(kind), byte(n >> 8), byte(n)}
}

// Unplug cuts the laptop's first cable at the switch: the laptop loses carrier.
func (s *Site) Unplug() error { return s.Cables[0].Unplug() }

// Plug connects the laptop's first cable again.
func (s *Site) Plug() error { return s.Cables[0].Plug() }

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
		"--interface=" + lanName, "--except-interface=lo", "--no-ping", "--dhcp-authoritative", "--log-queries=extra",
		"--dhcp-leasefile=" + filepath.Join(dir, s.Name+".leases"), "--pid-file=",
		"--local=/example/", "--host-record=site.example," + s.SiteAddress.String(), "--txt-record=site.example," + s.Name,
		"--host-record=internet.example," + InternetIPv4.String() + "," + InternetIPv6.String()}
	if s.RouterIPv4.IsValid() && !s.Options.WWAN {
		first, last := s.pool()
		args = append(args, fmt.Sprintf("--dhcp-range=%s,%s,1h", first, last))
	}
	if s.Options.RA == nil {
		args = append(args, "--bind-interfaces")
	} else { // prefixes come and go
		args = append(args, "--bind-dynamic")
	}
	if s.Options.DHCPv6 {
		first, last := s.Options.IPv6.Addr().As16(), s.Options.IPv6.Addr().As16()
		first[14], last[14], last[15] = 1, 1, 0xff
		args = append(args, fmt.Sprintf("--dhcp-range=%s,%s,64,1h", netip.AddrFrom16(first), netip.AddrFrom16(last)))
	}
	if s.RouterIPv6.IsValid() && s.Options.RA == nil && !s.Options.Mute && !s.Options.WWAN {
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
