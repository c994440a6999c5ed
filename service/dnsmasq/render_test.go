package dnsmasq

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/service/plan"
	"gangway/service/vnet"
)

var update = flag.Bool("update", false, "rewrite the goldens")

var (
	testPaths   = paths{dhcpHosts: "/run/gangway/dnsmasq/n/dhcp-hosts", names: "/run/gangway/dnsmasq/n/names", leases: "/var/lib/gangway/leases/n.leases"}
	testAccount = account{user: "dnsmasq", group: "nogroup", uid: 999}
)

func TestRenderConfigGolden(t *testing.T) {
	isolated := testSpec("lab_1-x", "10.0.0.1/28")
	isolated.Router, isolated.MTU = false, 0
	names := testSpec("names", "172.16.0.1/12")
	names.First, names.Last = netip.Addr{}, netip.Addr{}
	for name, spec := range map[string]plan.ServerSpec{
		"nat": testSpec("default", "192.168.231.1/24"), "isolated": isolated, "names-only": names,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := renderConfig(spec, testPaths, testAccount)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".conf", got)
		})
	}
}

func TestRenderHostsGolden(t *testing.T) {
	spec := testSpec("default", "192.168.231.1/24")
	spec.Hosts = []vnet.DHCPHost{host(guestMAC, "192.168.231.50", "printer"), host(otherMAC, "", "scanner"),
		host("02:00:00:00:00:03", "192.168.231.51", ""),
		host("02:00:00:00:00:04", "10.0.0.5", "moved")} // of the subnet before
	hosts, names, err := renderHosts(spec)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "dhcp-hosts", hosts)
	golden(t, "names", names)
	want := map[string]string{guestMAC: "printer", otherMAC: "scanner", "02:00:00:00:00:04": "moved"}
	if diff := cmp.Diff(want, reservedNames(hosts)); diff != "" {
		t.Error(diff)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestRenderRefusesWhatEndsALine(t *testing.T) {
	good := testSpec("default", "192.168.231.1/24")
	if _, err := renderConfig(good, testPaths, testAccount); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"a\nport=1", "a\r", "a\x00", "a b", "a#b", `a"b`, `a\b`, "a,b", "a\x7f", "\u00e4", ""} {
		for name, spoil := range map[string]func(*plan.ServerSpec, *paths, *account){
			"network": func(s *plan.ServerSpec, _ *paths, _ *account) { s.Network = bad },
			"bridge":  func(s *plan.ServerSpec, _ *paths, _ *account) { s.Bridge = bad },
			"domain":  func(s *plan.ServerSpec, _ *paths, _ *account) { s.Domain = bad },
			"leases":  func(_ *plan.ServerSpec, p *paths, _ *account) { p.leases = bad },
			"names":   func(_ *plan.ServerSpec, p *paths, _ *account) { p.names = bad },
			"hosts":   func(_ *plan.ServerSpec, p *paths, _ *account) { p.dhcpHosts = bad },
			"user":    func(_ *plan.ServerSpec, _ *paths, a *account) { a.user = bad },
			"group":   func(_ *plan.ServerSpec, _ *paths, a *account) { a.group = bad },
		} {
			spec, p, who := good, testPaths, testAccount
			spoil(&spec, &p, &who)
			if text, err := renderConfig(spec, p, who); err == nil {
				t.Errorf("%s %q was accepted:\n%s", name, bad, text)
			}
		}
	}
}

func TestRenderRefusesNonsense(t *testing.T) {
	for name, spoil := range map[string]func(*plan.ServerSpec){
		"IPv6":             func(s *plan.ServerSpec) { s.Address = netip.MustParsePrefix("2001:db8::1/64") },
		"no address":       func(s *plan.ServerSpec) { s.Address = netip.Prefix{} },
		"too long":         func(s *plan.ServerSpec) { s.Address = netip.MustParsePrefix("10.0.0.1/30") },
		"range backwards":  func(s *plan.ServerSpec) { s.First, s.Last = s.Last, s.First },
		"range elsewhere":  func(s *plan.ServerSpec) { s.Last = netip.MustParseAddr("192.168.232.5") },
		"half a range":     func(s *plan.ServerSpec) { s.Last = netip.Addr{} },
		"other half":       func(s *plan.ServerSpec) { s.First = netip.Addr{} },
		"short lease time": func(s *plan.ServerSpec) { s.LeaseTime = time.Minute },
		"large MTU":        func(s *plan.ServerSpec) { s.MTU = 65536 },
	} {
		spec := testSpec("default", "192.168.231.1/24")
		spoil(&spec)
		if _, err := renderConfig(spec, testPaths, testAccount); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestReverseZonesCoverTheSubnetExactly(t *testing.T) {
	for subnet, want := range map[string]struct {
		count       int
		first, last string
	}{
		"10.0.0.0/8":         {1, "10.in-addr.arpa", "10.in-addr.arpa"},
		"10.128.0.0/9":       {128, "128.10.in-addr.arpa", "255.10.in-addr.arpa"},
		"172.16.0.0/12":      {16, "16.172.in-addr.arpa", "31.172.in-addr.arpa"},
		"192.168.0.0/16":     {1, "168.192.in-addr.arpa", "168.192.in-addr.arpa"},
		"192.168.64.0/18":    {64, "64.168.192.in-addr.arpa", "127.168.192.in-addr.arpa"},
		"192.168.231.0/24":   {1, "231.168.192.in-addr.arpa", "231.168.192.in-addr.arpa"},
		"192.168.231.128/25": {128, "128.231.168.192.in-addr.arpa", "255.231.168.192.in-addr.arpa"},
		"192.168.231.8/29":   {8, "8.231.168.192.in-addr.arpa", "15.231.168.192.in-addr.arpa"},
	} {
		zones := reverseZones(netip.MustParsePrefix(subnet))
		if len(zones) != want.count || zones[0] != want.first || zones[len(zones)-1] != want.last {
			t.Errorf("%s: %d zones, %s to %s", subnet, len(zones), zones[0], zones[len(zones)-1])
		}
	}
}

func TestBusNamesAreLegalAndDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, network := range []string{"a", "a-b", "a_b", "a_2db", "a--b", "x9", "default", strings.Repeat("a", 30) + "-z"} {
		name := busName(network)
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q have the same name %s", network, other, name)
		}
		seen[name] = network
		if len(name) > 255 || strings.ContainsAny(name, "-") {
			t.Errorf("%q: %s is no interface name", network, name)
		}
	}
}
