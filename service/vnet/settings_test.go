package vnet

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDefaultsAreValid(t *testing.T) {
	for _, name := range []string{"default", "a", "a_b", "a-b_c-1", strings.Repeat("a", MaxNetworkName)} {
		want := DefaultSettings(name)
		got, err := want.Merge(want.Values())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", name, got, err, want)
		}
	}
	if got := DefaultDomain("a_b"); got != "a-b.internal" {
		t.Errorf("domain %q", got)
	}
}

// What the fields' own checks let through together must come back whole through Values.
func TestMergeOfValuesIsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		given := map[string]any{}
		for _, f := range Fields() {
			if rapid.Bool().Draw(t, "with "+f.Key) {
				good := values[f.Key].good
				given[f.Key] = good[rapid.IntRange(0, len(good)-1).Draw(t, f.Key)]
			}
		}
		settings, err := DefaultSettings("lab").Merge(given)
		if err != nil { // a reservation may lie outside of the subnet
			if KindOf(err) != InvalidSetting || given["dhcp-hosts"] == nil || given["ipv4-subnet"] == nil {
				t.Fatalf("%v: %v", given, err)
			}
			return
		}
		for _, base := range []Settings{settings, DefaultSettings("lab"), {}} {
			again, err := base.Merge(settings.Values())
			if err != nil || !reflect.DeepEqual(again, settings) {
				t.Fatalf("%+v, %v; want %+v", again, err, settings)
			}
		}
	})
}

func TestReservationsMustFitTheSubnet(t *testing.T) {
	tests := []struct {
		subnet, address string
		good            bool
	}{
		{"auto", "203.0.113.7", true},
		{"10.0.0.0/24", "10.0.0.2", true},
		{"10.0.0.0/24", "10.0.0.254", true},
		{"10.0.0.0/24", "10.0.0.0", false},
		{"10.0.0.0/24", "10.0.0.1", false}, // the gateway
		{"10.0.0.0/24", "10.0.0.255", false},
		{"10.0.0.0/24", "10.0.1.2", false},
		{"10.0.0.8/29", "10.0.0.14", true},
		{"10.0.0.8/29", "10.0.0.15", false},
		{"10.0.0.0/8", "10.255.255.254", true},
		{"10.0.0.0/8", "10.0.1.255", true},
		{"10.0.0.0/8", "10.255.255.255", false},
	}
	for _, test := range tests {
		_, err := DefaultSettings("lab").Merge(map[string]any{"ipv4-subnet": test.subnet,
			"dhcp-hosts": []map[string]any{host("mac", mac(1), "address", test.address)}})
		if (err == nil) != test.good {
			t.Errorf("%s in %s: %v, want good %v", test.address, test.subnet, err, test.good)
		}
	}
	// The order of two updates doesn't let a reservation out of the subnet.
	s, err := DefaultSettings("lab").Merge(map[string]any{"dhcp-hosts": []map[string]any{host("mac", mac(1), "address", "10.0.0.9")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Merge(map[string]any{"ipv4-subnet": "10.1.0.0/24"}); KindOf(err) != InvalidSetting {
		t.Errorf("subnet that leaves a reservation outside: %v, want InvalidSetting", err)
	}
}

func TestCloneAndValuesShareNothing(t *testing.T) {
	s := DefaultSettings("lab")
	s.DHCPHosts = []DHCPHost{{MAC: mac(1), Hostname: "a"}}
	c := s.Clone()
	c.DHCPHosts[0].Hostname = "changed"
	s.Values()["dhcp-hosts"].([]map[string]any)[0]["hostname"] = "changed"
	merged, err := s.Merge(map[string]any{"mtu": uint32(1400)})
	if err != nil {
		t.Fatal(err)
	}
	merged.DHCPHosts[0].Hostname = "changed"
	if s.DHCPHosts[0].Hostname != "a" || s.MTU != 0 {
		t.Errorf("changed through a copy: %+v", s)
	}
}

func TestSubnetArithmetic(t *testing.T) {
	for _, test := range []struct{ subnet, gateway, last string }{
		{"192.168.231.0/24", "192.168.231.1", "192.168.231.255"},
		{"10.0.0.0/8", "10.0.0.1", "10.255.255.255"},
		{"100.64.0.8/29", "100.64.0.9", "100.64.0.15"},
		{"172.16.0.0/12", "172.16.0.1", "172.31.255.255"},
		{"10.0.0.77/24", "10.0.0.1", "10.0.0.255"},
	} {
		p := netip.MustParsePrefix(test.subnet)
		if g, l := Gateway(p).String(), LastAddress(p).String(); g != test.gateway || l != test.last {
			t.Errorf("%s: gateway %s, last %s; want %s, %s", p, g, l, test.gateway, test.last)
		}
	}
}

func FuzzMerge(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Add("10.0.0.0/24")
	f.Add("52:54:00:00:00:01")
	f.Fuzz(func(t *testing.T, text string) {
		defaults := DefaultSettings("lab")
		try := func(given map[string]any) {
			settings, err := defaults.Merge(given)
			if err != nil {
				if KindOf(err) == Failed || !reflect.DeepEqual(settings, defaults) {
					t.Fatalf("%q: %v, settings %+v", text, err, settings)
				}
				return
			}
			for _, f := range Fields() {
				if value, ok := f.Get(settings).(string); ok && strings.ContainsAny(value, "\n\r\x00 ;,'\"\\`$#=") {
					t.Fatalf("%s accepted %q", f.Key, value)
				}
			}
			if again, err := defaults.Merge(settings.Values()); err != nil || !reflect.DeepEqual(again, settings) {
				t.Fatalf("%q: %+v, %v; want %+v", text, again, err, settings)
			}
		}
		for _, f := range Fields() {
			try(map[string]any{f.Key: text})
		}
		try(map[string]any{text: text})
		for _, k := range []string{"mac", "address", "hostname", text} {
			entry := host("mac", mac(1), "hostname", "a")
			entry[k] = text
			try(map[string]any{"dhcp-hosts": []map[string]any{entry}})
		}
	})
}
