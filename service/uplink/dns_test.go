package uplink

import (
	"net/netip"
	"testing"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"gangway/service/plan"
	"gangway/service/vnet"
)

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestUpstreams(t *testing.T) {
	servers := func(list ...string) (out []netip.Addr) {
		for _, text := range list {
			out = append(out, addr(text))
		}
		return out
	}
	lan := dnsEntry{servers: servers("10.1.0.53"), domains: []string{"lan"}, ifname: "eth0", priority: 100}
	for _, c := range []struct {
		name    string
		entries []dnsEntry
		want    []vnet.Upstream
	}{
		{"none", nil, nil},
		{"primary only", []dnsEntry{lan}, nil},
		{"VPN with routing domains", []dnsEntry{lan, {servers: servers("10.8.0.53", "10.8.0.54"), domains: []string{"~Corp.Example.", "corp.example", "8.10.in-addr.arpa"}, ifname: "tun0", vpn: true, priority: 50}},
			[]vnet.Upstream{
				{Address: addr("10.8.0.53"), Interface: "tun0", Domains: []string{"corp.example", "8.10.in-addr.arpa"}},
				{Address: addr("10.8.0.54"), Interface: "tun0", Domains: []string{"corp.example", "8.10.in-addr.arpa"}}}},
		{"for everything is not for a domain", []dnsEntry{lan, {servers: servers("10.8.0.53"), domains: []string{"~."}, ifname: "tun0"}}, nil},
		{"the primary's own domain", []dnsEntry{lan, {servers: servers("10.2.0.53"), domains: []string{"lan"}, ifname: "wlan0", priority: 100}}, nil},
		{"link-local server", []dnsEntry{{servers: servers("fe80::53"), domains: []string{"b.example"}, ifname: "wlan0"}},
			[]vnet.Upstream{{Address: addr("fe80::53%wlan0"), Interface: "wlan0", Domains: []string{"b.example"}}}},
		{"negative priority excludes the others", []dnsEntry{
			{servers: servers("10.2.0.53"), domains: []string{"b.example"}, ifname: "wlan0", priority: 100},
			{servers: servers("10.8.0.53"), domains: []string{"corp.example"}, ifname: "tun0", priority: -50}},
			[]vnet.Upstream{{Address: addr("10.8.0.53"), Interface: "tun0", Domains: []string{"corp.example"}}}},
		{"resolver on the host", []dnsEntry{{servers: servers("127.0.0.1"), domains: []string{"x.example"}, ifname: "wlan0"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, upstreams(c.entries, "eth0"), compareAddrs); diff != "" {
				t.Error("(-want +got):\n" + diff)
			}
		})
	}
}

func TestParseResolvConf(t *testing.T) {
	got := parseResolvConf("# nameserver 10.0.0.9\nsearch lan\nnameserver 127.0.0.53\nnameserver\t10.1.0.53 \nnameserver 10.1.0.53\nnameserver nonsense\nnameserver\nnameserver fe80::1%eth0")
	want := []netip.Addr{addr("127.0.0.53"), addr("10.1.0.53"), addr("fe80::1%eth0")}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
	if stub := stubOf(got); stub != addr("127.0.0.53") {
		t.Errorf("stub %v", stub)
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 10.1.0.53\nnameserver ::1")
	f.Fuzz(func(t *testing.T, text string) {
		for _, a := range parseResolvConf(text) {
			if !a.IsValid() {
				t.Errorf("invalid address from %q", text)
			}
		}
	})
}

func TestReservations(t *testing.T) {
	s := office()
	s.tunnel("wg0", "wireguard")
	wg := s.device("wg0", nm.NmDeviceTypeWireguard)
	wg.active.id = "Tunnel"
	wg.ip4.routes = []route{{dst: everything}, {dst: lowerHalf}, {dst: net4("10.90.0.0/16")}}
	s.pic.devices[0].ip4.nameservers = []netip.Addr{addr("10.1.0.53"), addr("2001:db8::53")}
	s.pic.vpns = []connection{{id: "Company", vpn: true, ip4: ipConfig{routes: []route{{dst: net4("172.20.0.0/14")}}, nameservers: []netip.Addr{addr("172.20.0.53")}}}}
	s.pic.dns = []dnsEntry{{servers: []netip.Addr{addr("10.1.0.53"), addr("127.0.0.1")}, ifname: "eth0"}}
	s.pic.profiles = []profile{{id: "Workshop", prefixes: []netip.Prefix{net4("192.168.5.2/24"), net4("0.0.0.0/0"), net4("fd00::/8")}}}
	want := []vnet.Reservation{
		{Prefix: net4("10.1.0.1/32"), Owner: "the gateway of eth0"},
		{Prefix: net4("10.1.0.53/32"), Owner: "a name server of eth0"},
		{Prefix: net4("10.2.0.1/32"), Owner: "the gateway of wlan0"},
		{Prefix: net4("10.90.0.0/16"), Owner: `a route of the VPN "Tunnel"`},
		{Prefix: net4("172.20.0.0/14"), Owner: `a route of the VPN "Company"`},
		{Prefix: net4("172.20.0.53/32"), Owner: `a name server of the VPN "Company"`},
		{Prefix: net4("192.168.5.0/24"), Owner: `NetworkManager's profile "Workshop"`},
	}
	got := convert(&s.pic, &s.k, holds{}).Reserved
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
}

func TestHasForeignRules(t *testing.T) {
	standard := []vnet.Rule{{Table: tableLocal, SuppressPrefixLength: -1}, {Priority: 32766, Table: tableMain, SuppressPrefixLength: -1}, {Priority: 32767, Table: tableDefault, SuppressPrefixLength: -1}}
	for _, c := range []struct {
		name string
		rule vnet.Rule
		want bool
	}{
		{"ours", vnet.Rule{Priority: plan.PriorityOwn, IIF: "gway0", Table: plan.TableFollow, SuppressPrefixLength: -1, Protocol: plan.Protocol}, false},
		{"wg-quick's", vnet.Rule{Table: 51820, SuppressPrefixLength: -1, Foreign: true}, true},
		{"main without its default", vnet.Rule{Table: tableMain, SuppressPrefixLength: 0}, true},
		{"Tailscale's", vnet.Rule{Priority: 5270, Table: 52, SuppressPrefixLength: -1}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := hasForeignRules(&vnet.Kernel{Rules: append(standard, c.rule)}); got != c.want {
				t.Errorf("%v", got)
			}
		})
	}
	if hasForeignRules(&vnet.Kernel{Rules: standard}) {
		t.Error("the kernel's own rules are foreign")
	}
}

func TestDecodeProfile(t *testing.T) {
	v := godbus.MakeVariant
	got := decodeProfile(map[string]properties{
		"connection": {"id": v("Tunnel"), "uuid": v("u")},
		"ipv4": {
			"method":       v("shared"),
			"address-data": v([]properties{{"address": v("10.5.0.2"), "prefix": v(uint32(24))}, {"address": v("x"), "prefix": v(uint32(24))}, {"address": v("10.6.0.1"), "prefix": v(uint32(99))}}),
			"route-data":   v([]properties{{"dest": v("10.7.0.0"), "prefix": v(uint32(16))}}),
			"gateway":      v("10.5.0.1"),
			"dns":          v("of another type"),
		},
		"wireguard": {"peers": v([]properties{{"allowed-ips": v([]string{"10.9.0.0/16", "nonsense"})}})},
	})
	want := profile{id: "Tunnel", uuid: "u", shared: true,
		prefixes: []netip.Prefix{net4("10.5.0.2/24"), net4("10.7.0.0/16"), net4("10.5.0.1/32"), net4("10.9.0.0/16")}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(profile{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
}
