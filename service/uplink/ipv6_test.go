package uplink

import (
	"net/netip"
	"slices"
	"testing"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// route6 adds an IPv6 route of the main table.
func (s *scene) route6(name, dst, via string) {
	r := vnet.Route{Table: tableMain, Dst: netip.MustParsePrefix(dst), Link: s.index(name), Metric: 1024, Type: vnet.RouteUnicast}
	if via != "" {
		r.Gateway = addr(via)
	}
	s.k.Routes6 = append(s.k.Routes6, r)
}

// tunnel46 adds a tunnel with addresses of both families.
func (s *scene) tunnel46(name string) *vnet.Link {
	l := s.link(name, "tun")
	l.Type, l.PointToPoint = 65534, true
	s.address(name, "10.8.0.2/32")
	s.address(name, "2001:db8:f::2/128")
	return l
}

func TestConvertIPv6(t *testing.T) {
	base := func() *scene {
		s := newScene()
		s.link("eth0", "")
		s.address("eth0", "10.1.0.5/24")
		s.route("eth0", "0.0.0.0/0", "10.1.0.1", 100)
		s.route6("eth0", "::/0", "fe80::1")
		s.device("eth0", nm.NmDeviceTypeEthernet).active.default6 = true
		s.pic.egress6 = s.index("eth0")
		return s
	}
	tests := map[string]struct {
		edit     func(*scene)
		ifname   string
		want     vnet.Uplink // Kind, Default6, Gateway6, PointToPoint, Delegated
		primary6 string
	}{
		"router": {func(*scene) {}, "eth0", vnet.Uplink{Kind: vnet.Ethernet, Default6: true, Gateway6: addr("fe80::1")}, "eth0"},
		"NetworkManager is ahead of the kernel": {func(s *scene) {
			s.k.Routes6, s.pic.devices[0].ip6.gateway = nil, addr("fe80::2")
		}, "eth0", vnet.Uplink{Kind: vnet.Ethernet, Default6: true, Gateway6: addr("fe80::2")}, "eth0"},
		"delegated": {func(s *scene) { s.pic.devices[0].ip6.delegated = []netip.Prefix{net4("2001:db8:d00::/56")} }, "eth0",
			vnet.Uplink{Kind: vnet.Ethernet, Default6: true, Gateway6: addr("fe80::1"), Delegated: []netip.Prefix{net4("2001:db8:d00::/56")}}, "eth0"},
		"a VPN over two halves": {func(s *scene) {
			s.tunnel46("tun0")
			s.route6("tun0", "::/1", "")
			s.route6("tun0", "8000::/1", "")
			s.pic.egress6 = s.index("tun0")
		}, "tun0", vnet.Uplink{Kind: vnet.VPN, Default6: true}, "tun0"},
		"a VPN over the internet": {func(s *scene) {
			s.tunnel46("tun0")
			s.route6("tun0", "2000::/3", "")
			s.pic.egress6 = s.index("tun0")
		}, "tun0", vnet.Uplink{Kind: vnet.VPN, Default6: true}, "tun0"},
		"a VPN with a table of its own": {func(s *scene) {
			s.tunnel46("tun0")
			s.route("tun0", "10.200.0.0/16", "", 50)
			s.pic.egress6 = s.index("tun0")
		}, "tun0", vnet.Uplink{Kind: vnet.VPN, Default6: true}, "tun0"},
		"a VPN for IPv4 alone": {func(s *scene) {
			s.tunnel46("tun0")
			s.route("tun0", "0.0.0.0/0", "", 50)
		}, "tun0", vnet.Uplink{Kind: vnet.VPN}, "eth0"},
		"half a default route": {func(s *scene) {
			s.tunnel46("tun0")
			s.route("tun0", "10.200.0.0/16", "", 50)
			s.route6("tun0", "::/1", "")
		}, "tun0", vnet.Uplink{Kind: vnet.VPN}, "eth0"},
		"a modem whose driver is a program": {func(s *scene) {
			s.tunnel46("wwan0")
			s.route("wwan0", "0.0.0.0/0", "", 700)
			s.route6("wwan0", "::/0", "")
			s.device("wwan0", nm.NmDeviceTypeTun)
		}, "wwan0", vnet.Uplink{Kind: vnet.WWAN, Default6: true, PointToPoint: true}, "eth0"},
		"a modem without NetworkManager": {func(s *scene) {
			s.pic.nm, s.pic.devices = false, nil
			s.tunnel46("wwp0s20u4")
			s.route("wwp0s20u4", "0.0.0.0/0", "", 700)
			s.route6("wwp0s20u4", "::/0", "")
		}, "wwp0s20u4", vnet.Uplink{Kind: vnet.WWAN, Default6: true, PointToPoint: true}, "eth0"},
		"a VPN with a name that begins alike": {func(s *scene) {
			s.tunnel46("wwork")
			s.route("wwork", "0.0.0.0/0", "", 50)
		}, "wwork", vnet.Uplink{Kind: vnet.VPN}, "eth0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := base()
			test.edit(s)
			all := convert(&s.pic, &s.k, s.holds)
			u, ok := all.Find(test.ifname)
			w := test.want
			if !ok || u.Kind != w.Kind || u.Default6 != w.Default6 || u.Gateway6 != w.Gateway6 || u.PointToPoint != w.PointToPoint || !slices.Equal(u.Delegated, w.Delegated) {
				t.Errorf("%s is %+v", test.ifname, u)
			}
			if all.Primary6 != test.primary6 {
				t.Errorf("the host's IPv6 goes by %q, want %q", all.Primary6, test.primary6)
			}
		})
	}
}

func TestDecodeDelegated(t *testing.T) {
	const path godbus.ObjectPath = "/dhcp6"
	for text, want := range map[string][]netip.Prefix{
		"":                   nil,
		"2001:db8:d00::/56":  {net4("2001:db8:d00::/56")},
		"2001:db8:d00::1/56": {net4("2001:db8:d00::/56")},
		"2001:db8:1::/48 2001:db8:2::/48,2001:db8:1::/48": {net4("2001:db8:1::/48"), net4("2001:db8:2::/48")},
		"10.0.0.0/8 nonsense 2001:db8::/200":              nil,
	} {
		all := objects{path: {nm.DHCP6ConfigInterface: {"Options": godbus.MakeVariant(properties{"ip6_prefix": godbus.MakeVariant(text), "iaid": godbus.MakeVariant("x")})}}}
		if got := decodeDelegated(all, path); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if got := decodeDelegated(objects{}, path); got != nil {
		t.Errorf("without a lease: %v", got)
	}
}
