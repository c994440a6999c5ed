package uplink

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	"github.com/google/go-cmp/cmp"

	"gangway/service/vnet"
)

func office4(text string) []netip.Prefix { return []netip.Prefix{net4(text)} }

// sharedOffice is office with eth0 shared as gwb-eth0, and a guest's tap at it.
func sharedOffice() *scene {
	s := office()
	s.link("gwb-eth0", "bridge")
	s.link("tap0", "tun").Master = s.index("gwb-eth0")
	s.k.Links[1].Master = s.index("gwb-eth0")
	s.k.Addresses[1].Link, s.k.Routes[0].Link = s.index("gwb-eth0"), s.index("gwb-eth0")
	s.pic.devices[0].active, s.pic.devices[0].ip4 = nil, ipConfig{}
	s.device("gwb-eth0", nm.NmDeviceTypeBridge).ip4.gateway = addr("10.1.0.1")
	s.pic.primary = "gwb-eth0"
	s.pic.profiles = []profile{
		{id: "eth0 profile", uuid: "eth0 uuid", kind: typeEthernet},
		{id: "eth0 profile (bridge)", uuid: "gwb-eth0 uuid", kind: typeBridge, ifname: "gwb-eth0", sharedFrom: "eth0 uuid"},
		{id: "eth0 profile (port)", uuid: "port uuid", kind: typeEthernet, ifname: "eth0", sharedFrom: "eth0 uuid", master: "gwb-eth0 uuid"},
	}
	s.pic.shares = sharesOf(s.pic.profiles)
	return s
}

func TestConvertShared(t *testing.T) {
	type line struct{ Name, SharedFrom, Bridge, Connection, UUID, Reason string }
	bridge := line{Name: "gwb-eth0", SharedFrom: "eth0 uuid", Connection: "gwb-eth0 profile", UUID: "gwb-eth0 uuid"}
	port := line{Name: "eth0", Bridge: "gwb-eth0", Connection: "eth0 profile", UUID: "eth0 uuid", Reason: "is a port of gwb-eth0"}
	wlan := line{Name: "wlan0", Connection: "wlan0 profile", UUID: "wlan0 uuid"}
	for _, c := range []struct {
		name    string
		scene   func() *scene
		primary string
		want    []line
	}{
		{"shared", sharedOffice, "gwb-eth0", []line{port, bridge, wlan}},
		{"NetworkManager has yet to see it so", func() *scene {
			s := sharedOffice()
			s.pic.primary = "eth0"
			return s
		}, "", []line{port, bridge, wlan}},
		{"without NetworkManager", func() *scene {
			s := sharedOffice()
			s.pic = picture{shares: s.pic.shares, hardware: map[string]vnet.UplinkKind{"wlan0": vnet.WiFi}}
			return s
		}, "gwb-eth0", []line{port, {Name: "gwb-eth0", SharedFrom: "eth0 uuid"}, {Name: "wlan0"}}},
		{"the original is gone", func() *scene {
			s := sharedOffice()
			s.pic.shares = sharesOf(s.pic.profiles[1:])
			return s
		}, "gwb-eth0", []line{{Name: "eth0", Bridge: "gwb-eth0", Reason: port.Reason}, bridge, wlan}},
		{"half a pair", func() *scene {
			s := sharedOffice()
			s.pic.shares = sharesOf(s.pic.profiles[:2])
			return s
		}, "gwb-eth0", []line{{Name: "gwb-eth0", Connection: bridge.Connection, UUID: bridge.UUID}, wlan}},
		{"another profile is on the bridge", func() *scene {
			s := sharedOffice()
			s.pic.devices[2].active.uuid = "other"
			return s
		}, "gwb-eth0", []line{port, {Name: "gwb-eth0", Connection: bridge.Connection, UUID: "other"}, wlan}},
		{"the port is at another bridge", func() *scene {
			s := sharedOffice()
			s.link("br0", "bridge")
			s.k.Links[1].Master = s.index("br0")
			return s
		}, "gwb-eth0", []line{bridge, wlan}},
		{"the bridge is down for want of a carrier", func() *scene {
			s := sharedOffice()
			s.pic.devices[2].state, s.pic.devices[2].active, s.pic.primary = nm.NmDeviceStateUnavailable, nil, "wlan0"
			return s
		}, "wlan0", []line{port, wlan}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.scene()
			u := convert(&s.pic, &s.k, s.holds)
			var got []line
			for _, l := range u.List {
				got = append(got, line{l.Interface, l.SharedFrom, l.Bridge, l.Connection, l.ConnectionUUID, l.Reason})
				if l.Bridge != "" && (l.Usable || l.Kind != vnet.Ethernet || l.Default4 || len(l.Addresses) != 0 || l.Unshareable != "") {
					t.Errorf("port %+v", l)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error("(-want +got):\n" + diff)
			}
			if u.Primary != c.primary || u.Physical != c.primary {
				t.Errorf("primary %q, physical %q, want %q", u.Primary, u.Physical, c.primary)
			}
		})
	}
}

func TestUnshareable(t *testing.T) {
	eth := func(change func(*profile)) func() *scene {
		return func() *scene {
			s := office()
			p := profile{id: "eth0 profile", uuid: "eth0 uuid", kind: typeEthernet}
			change(&p)
			s.pic.profiles = []profile{p}
			return s
		}
	}
	for _, c := range []struct {
		name   string
		scene  func() *scene
		ifname string
		want   string
	}{
		{"Ethernet", office, "eth0", ""},
		{"its profile is known", eth(func(*profile) {}), "eth0", ""},
		{"802.1X", eth(func(p *profile) { p.authenticated = true }), "eth0", "802.1X authenticates this interface's own address"},
		{"PPPoE, before it is up", eth(func(p *profile) { p.kind = "pppoe" }), "eth0", "PPPoE: the host's IP goes by a PPP link above the Ethernet"},
		{"a profile of another type", eth(func(p *profile) { p.kind = "macsec" }), "eth0",
			`only a profile of type 802-3-ethernet can be made one of a bridge, and "eth0 profile" is of type macsec`},
		{"its profile makes it a port", eth(func(p *profile) { p.master = "br7" }), "eth0", "it is a port of another interface already"},
		{"Wi-Fi", office, "wlan0", "Wi-Fi: an access point takes frames from the station's own address only"},
		{"bridge of ours", sharedOffice, "gwb-eth0", ""},
		{"modem", func() *scene {
			s := office()
			s.pic.devices[0].kind = nm.NmDeviceTypeModem
			return s
		}, "eth0", "only an Ethernet interface can be made a bridge, and eth0 is of kind wwan"},
		{"VLAN", func() *scene {
			s := office()
			s.k.Links[1].Kind, s.pic.devices[0].kind = "vlan", nm.NmDeviceTypeVlan
			return s
		}, "eth0", "only an Ethernet interface can be made a bridge, and eth0 is of kind vlan"},
		{"macvlan, an Ethernet to others", func() *scene {
			s := office()
			s.k.Links[1].Kind, s.pic.devices[0].kind = "macvlan", nm.NmDeviceTypeMacvlan
			return s
		}, "eth0", "only an Ethernet interface can be made a bridge, and eth0 is made of another interface"},
		{"InfiniBand by the kernel's account", func() *scene {
			s := office()
			s.k.Links[1].Type = 32
			return s
		}, "eth0", "only an Ethernet interface can be made a bridge, and eth0 is made of another interface"},
		{"port of a VRF", func() *scene {
			s := office()
			s.link("red", "vrf")
			s.k.Links[1].Master = s.index("red")
			return s
		}, "eth0", "eth0 is a port of another interface already"},
		{"unmanaged", func() *scene {
			s := office()
			s.pic.devices[0].state, s.pic.devices[0].active = nm.NmDeviceStateUnmanaged, nil
			return s
		}, "eth0", "NetworkManager does not configure eth0"},
		{"without NetworkManager", func() *scene {
			s := office()
			s.pic = picture{why: "NetworkManager is not running"}
			return s
		}, "eth0", "NetworkManager is not running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.scene()
			u := convert(&s.pic, &s.k, s.holds)
			l, ok := u.Find(c.ifname)
			if !ok || l.Unshareable != c.want {
				t.Errorf("listed %v, %q, want %q", ok, l.Unshareable, c.want)
			}
		})
	}
}

func TestLostCarrier(t *testing.T) {
	s := sharedOffice()
	bridge := s.index("gwb-eth0")
	s.k.Links[1].Carrier = false // the guest's tap keeps the bridge's
	s.holds = holds{usable: map[int]time.Duration{2: 5 * time.Millisecond}, lost: map[int]time.Duration{2: time.Second}}
	u := convert(&s.pic, &s.k, s.holds)
	if br, _ := u.Find("gwb-eth0"); br.LostCarrier || !br.Usable || u.Recheck != 0 {
		t.Errorf("the port's alone: recheck %v, %+v", u.Recheck, br)
	}
	s.k.Links[bridge-1].Carrier = false
	s.holds = holds{usable: map[int]time.Duration{bridge: 50 * time.Millisecond}, lost: map[int]time.Duration{bridge: 2 * time.Second, 77: time.Millisecond}}
	u = convert(&s.pic, &s.k, s.holds)
	if br, _ := u.Find("gwb-eth0"); !br.LostCarrier || !br.Usable || u.Recheck != 50*time.Millisecond {
		t.Errorf("just now: recheck %v, %+v", u.Recheck, br)
	}
	s.holds.usable = nil
	u = convert(&s.pic, &s.k, s.holds)
	if br, _ := u.Find("gwb-eth0"); !br.LostCarrier || br.Usable || u.Recheck != 2*time.Second {
		t.Errorf("after the hold-down: recheck %v, %+v", u.Recheck, br)
	}
	if i := slices.IndexFunc(u.List, func(l vnet.Uplink) bool { return l.LostCarrier && l.Interface != "gwb-eth0" }); i >= 0 {
		t.Errorf("%+v", u.List[i])
	}
}

func TestPrimary6(t *testing.T) {
	vpn := func(s *scene) *scene {
		s.tunnel("tun0", "tun")
		s.pic.vpns = []connection{{id: "Company", vpn: true, default6: true, state: nm.NmActiveConnectionStateActivated,
			devices: []string{"eth0"}, ip4: ipConfig{addresses: office4("10.8.0.2/24")}}}
		return s
	}
	for _, c := range []struct {
		name  string
		scene func() *scene
		want  string
	}{
		{"none", office, ""},
		{"NetworkManager's", func() *scene {
			s := office()
			s.pic.devices[1].active.default6 = true
			s.pic.egress6 = s.index("eth0") // some milliseconds behind
			return s
		}, "wlan0"},
		{"a VPN's", func() *scene {
			s := vpn(office())
			s.pic.devices[0].active.default6 = true
			return s
		}, "tun0"},
		{"a VPN that is not up yet", func() *scene {
			s := vpn(office())
			s.pic.devices[0].active.default6, s.pic.vpns[0].state = true, nm.NmActiveConnectionStateActivating
			return s
		}, "eth0"},
		{"the kernel's", func() *scene {
			s := office()
			s.pic = picture{egress6: s.index("eth0")}
			return s
		}, "eth0"},
		{"of what is no uplink", func() *scene {
			s := office()
			s.link("docker0", "bridge")
			s.pic.egress6 = s.index("docker0")
			return s
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.scene()
			if got := convert(&s.pic, &s.k, s.holds).Primary6; got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestBridgeName(t *testing.T) {
	none := func(string) bool { return false }
	for ifname, want := range map[string]string{"eth0": "gwb-eth0", "enp0s31f6": "gwb-enp0s31f6", "enx0123456789": "gwb-x0123456789", "wan-port-abcdef": "gwb-port-abcdef"} {
		if got := bridgeName(ifname, none); got != want {
			t.Errorf("%s: %q, want %q", ifname, got, want)
		}
	}
	seen := map[string]bool{}
	for range 20 {
		name := bridgeName("eth0", func(name string) bool { return seen[name] })
		if seen[name] || len(name) > 15 || !strings.HasPrefix(name, "gwb-") {
			t.Errorf("%q after %v", name, seen)
		}
		seen[name] = true
	}
}
