package uplink

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
	"gangway/service/vnet"
)

var (
	addr = netip.MustParseAddr
	net4 = netip.MustParsePrefix
)

func TestConvert(t *testing.T) {
	eth := line{"eth0", vnet.Ethernet, "10.1.0.1", 100, ""}
	wlan := line{"wlan0", vnet.WiFi, "10.2.0.1", 600, ""}
	for _, c := range []struct {
		name     string
		scene    func() *scene
		primary  string
		physical string
		lines    []line
	}{
		{"two uplinks", office, "eth0", "eth0", []line{eth, wlan}},
		{"primary before its route", func() *scene {
			s := office()
			s.k.Routes = s.k.Routes[1:]
			s.pic.devices[0].ip4.routes = []route{{dst: everything, nextHop: addr("10.1.0.1"), metric: 100}}
			return s
		}, "eth0", "eth0", []line{eth, wlan}},
		{"still asking for an address", func() *scene {
			s := office()
			s.pic.devices[0].state = nm.NmDeviceStateIpConfig
			s.k.Addresses = slices.DeleteFunc(s.k.Addresses, func(a vnet.Address) bool { return a.Link == s.index("eth0") })
			s.k.Routes = s.k.Routes[1:]
			s.pic.primary = "wlan0"
			return s
		}, "wlan0", "wlan0", []line{wlan}},
		{"address there, checks pending", func() *scene {
			s := office()
			s.pic.devices[0].state = nm.NmDeviceStateIpCheck
			return s
		}, "eth0", "eth0", []line{eth, wlan}},
		{"torn down, the route still there", func() *scene {
			s := office()
			s.pic.devices[0].state, s.pic.devices[0].active = nm.NmDeviceStateDisconnected, nil
			s.pic.primary = ""
			return s
		}, "", "", []line{wlan}},
		{"no carrier", func() *scene {
			s := office()
			s.k.Links[1].Carrier = false
			return s
		}, "eth0", "eth0", []line{{"eth0", vnet.Ethernet, "10.1.0.1", 100, "no carrier"}, wlan}},
		{"carrier lost just now", func() *scene {
			s := office()
			s.k.Links[1].Carrier = false
			s.holds.usable = map[int]time.Duration{2: time.Millisecond}
			return s
		}, "eth0", "eth0", []line{eth, wlan}},
		{"set down", func() *scene {
			s := office()
			s.k.Links[1].Carrier, s.k.Links[1].Up = false, false
			return s
		}, "eth0", "eth0", []line{{"eth0", vnet.Ethernet, "10.1.0.1", 100, "link is down"}, wlan}},
		{"only a link-local address", func() *scene {
			s := office()
			s.k.Addresses[2].Prefix, s.k.Addresses[2].Scope = net4("169.254.3.4/16"), unix.RT_SCOPE_LINK
			return s
		}, "eth0", "eth0", []line{eth, {"wlan0", vnet.WiFi, "10.2.0.1", 600, "no IPv4 address"}}},
		{"never-default, without a route", func() *scene {
			s := office()
			s.k.Routes = s.k.Routes[:1]
			s.pic.devices[1].ip4.gateway = netip.Addr{}
			return s
		}, "eth0", "eth0", []line{eth, {"wlan0", vnet.WiFi, "none", 0, "no IPv4 default route"}}},
		{"never-default, but a route in the kernel", func() *scene {
			s := office()
			s.pic.devices[1].ip4.gateway = netip.Addr{}
			return s
		}, "eth0", "eth0", []line{eth, wlan}},
		{"pulled out, and NetworkManager has yet to notice", func() *scene {
			s := office()
			s.k.Links[1].Index, s.k.Links[1].Name = 77, "other"
			return s
		}, "", "", []line{wlan}},
		{"others' virtual networks and ours", func() *scene {
			s := office()
			for _, name := range []string{"docker0", "virbr0", "lxdbr0"} {
				s.link(name, "bridge")
				s.address(name, "172.17.0.1/16")
				s.device(name, nm.NmDeviceTypeBridge).active.external = true
			}
			s.link("vnet0", "tun").Master = s.index("virbr0")
			s.device("vnet0", nm.NmDeviceTypeTun).active.external = true
			s.link("gway0", "bridge").Alias = plan.AliasPrefix + "default"
			s.device("gway0", nm.NmDeviceTypeBridge)
			s.link("renamed", "bridge").Group = plan.GroupBridge | plan.GroupServices
			s.device("renamed", nm.NmDeviceTypeBridge)
			s.link("tap0", "tun")
			s.address("tap0", "192.168.100.1/24")
			s.route("tap0", "192.168.100.0/24", "", 0).Protocol = unix.RTPROT_KERNEL
			s.device("tap0", nm.NmDeviceTypeTun).active.external = true
			return s
		}, "eth0", "eth0", []line{eth, wlan}},
		{"bridge of NetworkManager with a port", func() *scene {
			s := office()
			s.link("br0", "bridge")
			s.k.Links[1].Master = s.index("br0")
			s.k.Addresses[1].Link, s.k.Routes[0].Link = s.index("br0"), s.index("br0")
			s.device("br0", nm.NmDeviceTypeBridge).ip4.gateway = addr("10.1.0.1")
			s.pic.devices[0].ip4 = ipConfig{}
			s.pic.primary = "br0"
			return s
		}, "br0", "br0", []line{{"br0", vnet.BridgeKind, "10.1.0.1", 100, ""}, wlan}},
		{"hotspot", func() *scene {
			s := office()
			s.pic.profiles = []profile{{id: "Hotspot", uuid: "wlan0 uuid", shared: true}}
			s.pic.devices[1].ip4.gateway = netip.Addr{}
			s.k.Routes = s.k.Routes[:1]
			return s
		}, "eth0", "eth0", []line{eth}},
		{"edited to be a hotspot, not yet in force", func() *scene {
			s := office()
			s.pic.profiles = []profile{{id: "Hotspot", uuid: "wlan0 uuid", shared: true}}
			return s
		}, "eth0", "eth0", []line{eth, wlan}},
		{"modem and its PPP interface", func() *scene {
			s := office()
			s.link("ppp0", "ppp").Type = 512
			s.address("ppp0", "100.64.3.4/32")
			s.route("ppp0", "0.0.0.0/0", "", 700)
			s.device("ppp0", nm.NmDeviceTypePpp).active.external = true
			s.device("ppp0", nm.NmDeviceTypeModem)
			return s
		}, "eth0", "eth0", []line{eth, {"ppp0", vnet.WWAN, "link", 700, ""}, wlan}},
		{"PPPoE", func() *scene {
			s := office()
			s.link("ppp0", "ppp").Type = 512
			s.address("ppp0", "100.64.3.4/32")
			s.route("ppp0", "0.0.0.0/0", "", 700)
			s.device("ppp0", nm.NmDeviceTypeEthernet)
			return s
		}, "eth0", "eth0", []line{eth, {"ppp0", vnet.PPP, "link", 700, ""}, wlan}},
		{"VPN plugin", func() *scene {
			s := office()
			s.tunnel("tun0", "tun")
			s.route("tun0", "0.0.0.0/0", "10.8.0.1", 50)
			s.device("tun0", nm.NmDeviceTypeTun).active.external = true
			s.pic.vpns = []connection{{id: "Company", vpn: true, default4: true, state: nm.NmActiveConnectionStateActivated,
				devices: []string{"wlan0"}, ip4: ipConfig{addresses: []netip.Prefix{net4("10.8.0.2/24")}}}}
			s.pic.primary = "wlan0"
			return s
		}, "tun0", "wlan0", []line{eth, {"tun0", vnet.VPN, "10.8.0.1", 50, ""}, wlan}},
		{"VPN plugin that leads to the company only", func() *scene {
			s := office()
			s.tunnel("tun0", "tun")
			s.route("tun0", "10.77.0.0/16", "10.8.0.1", 50)
			s.pic.vpns = []connection{{id: "Company", vpn: true, state: nm.NmActiveConnectionStateActivated,
				devices: []string{"eth0"}, ip4: ipConfig{addresses: []netip.Prefix{net4("10.8.0.2/24")}}}}
			return s
		}, "eth0", "eth0", []line{eth, {"tun0", vnet.VPN, "none", 0, "no IPv4 default route"}, wlan}},
		{"IPsec by policies has no interface", func() *scene {
			s := office()
			s.pic.vpns = []connection{{id: "Company", vpn: true, default4: true, state: nm.NmActiveConnectionStateActivated,
				devices: []string{"eth0"}, ip4: ipConfig{addresses: []netip.Prefix{net4("10.8.0.2/32")}}}}
			return s
		}, "eth0", "eth0", []line{eth, wlan}},
		{"WireGuard of NetworkManager", func() *scene {
			s := office()
			s.tunnel("wg0", "wireguard")
			s.route("wg0", "0.0.0.0/0", "", 50)
			s.device("wg0", nm.NmDeviceTypeWireguard).active.default4 = true
			s.pic.primary = "wg0"
			return s
		}, "wg0", "eth0", []line{eth, {"wg0", vnet.VPN, "link", 50, ""}, wlan}},
		{"OpenVPN unknown to NetworkManager", func() *scene {
			s := office()
			s.tunnel("tun0", "tun")
			s.route("tun0", "0.0.0.0/1", "10.8.0.1", 0)
			s.route("tun0", "128.0.0.0/1", "10.8.0.1", 0)
			return s
		}, "tun0", "eth0", []line{eth, {"tun0", vnet.VPN, "10.8.0.1", 0, ""}, wlan}},
		{"only half of it", func() *scene {
			s := office()
			s.tunnel("tun0", "tun")
			s.route("tun0", "0.0.0.0/1", "10.8.0.1", 0)
			return s
		}, "eth0", "eth0", []line{eth, {"tun0", vnet.VPN, "none", 0, "no IPv4 default route"}, wlan}},
		{"wg-quick", func() *scene {
			s := office()
			s.tunnel("wg0", "wireguard")
			s.route("wg0", "0.0.0.0/0", "", 0).Table = 51820
			s.pic.probed, s.pic.egress = true, s.index("wg0")
			return s
		}, "wg0", "eth0", []line{eth, {"wg0", vnet.VPN, "link", 0, ""}, wlan}},
		{"Tailscale without an exit node", func() *scene {
			s := office()
			s.tunnel("tailscale0", "tun")
			s.route("tailscale0", "100.100.100.100/32", "", 0).Table = 52
			s.pic.probed, s.pic.egress = true, s.index("eth0")
			return s
		}, "eth0", "eth0", []line{eth, {"tailscale0", vnet.VPN, "none", 0, "no IPv4 default route"}, wlan}},
		{"an interface that NetworkManager does not manage is the only one", func() *scene {
			s := office()
			s.pic.devices[0].state, s.pic.devices[0].active = nm.NmDeviceStateUnmanaged, nil
			s.pic.devices[1].state, s.pic.devices[1].active = nm.NmDeviceStateDisconnected, nil
			s.pic.primary = ""
			return s
		}, "eth0", "eth0", []line{eth}},
		{"an interface that NetworkManager does not manage has the better route", func() *scene {
			s := office()
			s.pic.devices[0].state, s.pic.devices[0].active = nm.NmDeviceStateUnmanaged, nil
			s.pic.primary = "wlan0"
			return s
		}, "eth0", "eth0", []line{eth, wlan}},
		{"without NetworkManager", func() *scene {
			s := office()
			s.pic = picture{hardware: map[string]vnet.UplinkKind{"wlan0": vnet.WiFi}}
			s.link("docker0", "bridge")
			s.address("docker0", "172.17.0.1/16")
			return s
		}, "eth0", "eth0", []line{eth, wlan}},
		{"without NetworkManager, VPN", func() *scene {
			s := office()
			s.pic = picture{hardware: map[string]vnet.UplinkKind{"wlan0": vnet.WiFi}}
			s.tunnel("tun0", "tun")
			s.route("tun0", "0.0.0.0/1", "10.8.0.1", 0)
			s.route("tun0", "128.0.0.0/1", "10.8.0.1", 0)
			return s
		}, "tun0", "eth0", []line{eth, {"tun0", vnet.VPN, "10.8.0.1", 0, ""}, wlan}},
		{"our own routes make no uplink", func() *scene {
			s := newScene()
			s.link("eth9", "")
			s.address("eth9", "10.9.0.1/24")
			s.route("eth9", "0.0.0.0/0", "10.9.0.9", 0).Protocol = plan.Protocol
			return s
		}, "", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.scene()
			u := convert(&s.pic, &s.k, s.holds)
			if u.Primary != c.primary || u.Physical != c.physical {
				t.Errorf("primary %q, physical %q; want %q, %q", u.Primary, u.Physical, c.primary, c.physical)
			}
			if diff := cmp.Diff(c.lines, linesOf(u)); diff != "" {
				t.Error("uplinks (-want +got):\n" + diff)
			}
			for _, l := range u.List {
				if l.Usable != (l.Reason == "") {
					t.Errorf("%s: usable %v, reason %q", l.Interface, l.Usable, l.Reason)
				}
			}
		})
	}
}

func TestConvertDetails(t *testing.T) {
	s := office()
	s.holds.usable = map[int]time.Duration{2: 120 * time.Millisecond, 3: 80 * time.Millisecond, 99: time.Millisecond}
	s.address("eth0", "fe80::5/64").Scope = unix.RT_SCOPE_LINK
	s.address("eth0", "2001:db8:1::5/64")
	s.address("eth0", "2001:db8:1::6/64")
	s.address("eth0", "2001:db8:7::9/128")
	s.address("eth0", "2001:db8:2::5/64").Deprecated = true
	s.address("eth0", "2001:db8:3::5/64").Tentative = true
	eth := &s.pic.devices[0]
	eth.metered, eth.connectivity = nm.NmMeteredGuessYes, nm.NmConnectivityPortal
	eth.ip4.nameservers = []netip.Addr{addr("10.1.0.53")}
	eth.ip6 = ipConfig{gateway: addr("fe80::1"), nameservers: []netip.Addr{addr("fe80::53"), addr("2001:db8::53")}}
	s.pic.resolv = []netip.Addr{addr("127.0.0.53")}
	u := convert(&s.pic, &s.k, s.holds)
	got, _ := u.Find("eth0")
	want := vnet.Uplink{
		Interface: "eth0", Index: 2, Kind: vnet.Ethernet, Connection: "eth0 profile", ConnectionUUID: "eth0 uuid",
		Addresses: []netip.Prefix{net4("10.1.0.5/24"), net4("fe80::5/64"), net4("2001:db8:1::5/64"), net4("2001:db8:1::6/64"),
			net4("2001:db8:7::9/128"), net4("2001:db8:2::5/64")},
		Default4: true, Gateway4: addr("10.1.0.1"), Metric4: 100, MTU: 1500, Usable: true,
		Default6: true, Gateway6: addr("fe80::1"),
		Routers:     []netip.Addr{addr("fe80::1")},
		Prefixes:    []netip.Prefix{net4("2001:db8:1::/64")},
		Nameservers: []netip.Addr{addr("10.1.0.53"), addr("fe80::53%eth0"), addr("2001:db8::53")},
		Metered:     "yes", Connectivity: "portal",
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error("eth0 (-want +got):\n" + diff)
	}
	if u.Recheck != 80*time.Millisecond || u.Stub != addr("127.0.0.53") || u.Source != SourceNetworkManager {
		t.Errorf("recheck %v, stub %v, source %q", u.Recheck, u.Stub, u.Source)
	}
}

func TestCarriers(t *testing.T) {
	const hold = 300 * time.Millisecond
	start := time.Unix(1000, 0)
	k := func(up, carrier bool) *vnet.Kernel {
		return &vnet.Kernel{Links: []vnet.Link{{Index: 7, Up: up, Carrier: carrier}}}
	}
	type step struct {
		after time.Duration
		k     *vnet.Kernel
		left  time.Duration
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"lost, and held down", []step{{0, k(true, true), 0}, {1, k(true, false), hold}, {100 * time.Millisecond, k(true, false), hold - 100*time.Millisecond + 1},
			{hold, k(true, false), 1}, {hold + 1, k(true, false), 0}}},
		{"gone already at start", []step{{0, k(true, false), 0}, {1, k(true, false), 0}}},
		{"lost twice", []step{{0, k(true, true), 0}, {1, k(true, false), hold}, {200, k(true, true), 0}, {300, k(true, false), hold}}},
		{"set down on purpose", []step{{0, k(true, true), 0}, {1, k(false, false), 0}, {2, k(true, false), 0}}},
		{"another link of that index", []step{{0, k(true, true), 0}, {1, &vnet.Kernel{}, 0}, {2, k(true, false), 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var memory carriers
			for i, s := range c.steps {
				now := start.Add(s.after)
				memory = memory.observe(s.k, now)
				if left := memory.remaining(hold, now)[7]; left != s.left {
					t.Errorf("step %d: %v left, want %v", i, left, s.left)
				}
			}
		})
	}
}
