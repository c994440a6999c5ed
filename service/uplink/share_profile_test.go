package uplink

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

// profileOf makes settings of plain values.
func profileOf(plain map[string]map[string]any) settings {
	s := settings{}
	for name, p := range plain {
		s[name] = properties{}
		for key, value := range p {
			s[name][key] = godbus.MakeVariant(value)
		}
	}
	return s
}

// linesOfProfile are its properties as text, sorted.
func linesOfProfile(s settings) string {
	var lines []string
	for name, p := range s {
		for key, v := range p {
			lines = append(lines, fmt.Sprintf("%s.%s=%v", name, key, v.Value()))
		}
		if len(p) == 0 {
			lines = append(lines, name)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func officeOrigin() origin {
	mac, _ := net.ParseMAC("02:11:22:33:44:55")
	return origin{
		ifname: "eth0", mac: mac, permanent: slices.Clone(mac), metric4: 100, metric6: 101,
		clientID: "01:02:11:22:33:44:55", duid: "00:04:aa", iaid: "7",
		profile: profileOf(map[string]map[string]any{
			"connection": {"id": "Office", "uuid": "original", "type": typeEthernet, "interface-name": "eth0", "timestamp": uint64(7), "zone": "work",
				"autoconnect-priority": int32(5), "lldp": int32(1), "wait-device-timeout": int32(9), "mdns": int32(2), "permissions": []string{"user:me:"}},
			typeEthernet: {"mtu": uint32(1400), "wake-on-lan": uint32(64), "cloned-mac-address": []byte{1}, "assigned-mac-address": "random", "mac-address": []byte(mac)},
			"ipv4": {"method": "auto", "address-data": []properties{}, "addresses": [][]uint32{}, "dns-search": []string{"a.example"}, "never-default": true,
				"dhcp-client-id": "stable", "dns-data": []string{"9.9.9.9"}, "dns": []uint32{0x09090909}},
			"ipv6": {"method": "auto", "addr-gen-mode": int32(1), "ip6-privacy": int32(2), "route-metric": int64(55),
				"routes": []struct {
					A []byte
					B uint32
				}{}},
			"proxy":   {"method": int32(0)},
			"ethtool": {"feature-gro": false},
			"user":    {"data": map[string]string{"a.b": "c"}},
		}),
	}
}

func TestSharedProfiles(t *testing.T) {
	const bridge = `802-3-ethernet.assigned-mac-address=02:11:22:33:44:55
802-3-ethernet.mtu=1400
bridge.forward-delay=0
bridge.interface-name=gwb-eth0
bridge.mac-address=[2 17 34 51 68 85]
bridge.stp=false
connection.autoconnect-priority=6
connection.id=Office (bridge)
connection.interface-name=gwb-eth0
connection.mdns=2
connection.permissions=[user:me:]
connection.type=bridge
connection.uuid=B
connection.zone=work
ipv4.address-data=[]
ipv4.dhcp-client-id=01:02:11:22:33:44:55
ipv4.dns-data=[9.9.9.9]
ipv4.dns-search=[a.example]
ipv4.method=auto
ipv4.never-default=true
ipv4.route-metric=100
ipv6.addr-gen-mode=1
ipv6.dhcp-duid=00:04:aa
ipv6.dhcp-iaid=7
ipv6.ip6-privacy=2
ipv6.method=auto
ipv6.route-metric=55
proxy.method=0
user.data=map[a.b:c org.gangway.shared-from:original]
`
	const port = `802-3-ethernet.assigned-mac-address=permanent
802-3-ethernet.mac-address=[2 17 34 51 68 85]
802-3-ethernet.mtu=1400
802-3-ethernet.wake-on-lan=64
connection.autoconnect-priority=6
connection.id=Office (port)
connection.interface-name=eth0
connection.lldp=1
connection.master=B
connection.permissions=[user:me:]
connection.slave-type=bridge
connection.type=802-3-ethernet
connection.uuid=P
connection.wait-device-timeout=9
ethtool.feature-gro=false
user.data=map[a.b:c org.gangway.shared-from:original]
`
	o := officeOrigin()
	before := linesOfProfile(o.profile)
	b, p := bridgeProfile(&o, "B", "gwb-eth0"), portProfile(&o, "P", "B")
	if diff := cmp.Diff(bridge, linesOfProfile(b)); diff != "" {
		t.Error("bridge (-want +got):\n" + diff)
	}
	if diff := cmp.Diff(port, linesOfProfile(p)); diff != "" {
		t.Error("port (-want +got):\n" + diff)
	}
	if diff := cmp.Diff(before, linesOfProfile(o.profile)); diff != "" {
		t.Error("the original was changed:\n" + diff)
	}

	// What is made of ours again is as good as the original.
	const again = `802-3-ethernet.assigned-mac-address=permanent
802-3-ethernet.mac-address=[2 17 34 51 68 85]
802-3-ethernet.mtu=1400
802-3-ethernet.wake-on-lan=64
connection.autoconnect-priority=5
connection.id=Office
connection.interface-name=eth0
connection.mdns=2
connection.permissions=[user:me:]
connection.type=802-3-ethernet
connection.uuid=original
connection.zone=work
ethtool.feature-gro=false
`
	var rest []string
	for line := range strings.Lines(linesOfProfile(originalProfile(b, p, "original"))) {
		if !strings.HasPrefix(line, "ip") && !strings.HasPrefix(line, "proxy") {
			rest = append(rest, line)
		}
	}
	if diff := cmp.Diff(again, strings.Join(rest, "")); diff != "" {
		t.Error("original (-want +got):\n" + diff)
	}
}

func TestSharedProfileDetails(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(o *origin)
		want   map[string]string // by setting.property of either profile; "" is absent
	}{
		{"another MAC than its own", func(o *origin) { o.permanent[5]++ }, map[string]string{"port assigned-mac-address": "02:11:22:33:44:55"}},
		{"its own MAC isn't known", func(o *origin) { o.permanent = nil }, map[string]string{"port assigned-mac-address": "02:11:22:33:44:55"}},
		{"highest priority", func(o *origin) { o.profile["connection"]["autoconnect-priority"] = godbus.MakeVariant(int32(999)) },
			map[string]string{"autoconnect-priority": "999"}},
		{"no metric in force", func(o *origin) { o.metric4 = -1 }, map[string]string{"ipv4 route-metric": ""}},
		{"no lease", func(o *origin) { o.clientID = "" }, map[string]string{"ipv4 dhcp-client-id": "stable"}},
		{"default metric, explicitly", func(o *origin) { o.profile["ipv6"]["route-metric"] = godbus.MakeVariant(int64(-1)) },
			map[string]string{"ipv6 route-metric": "101"}},
		{"addresses of EUI-64", func(o *origin) {
			o.local, o.global = addr("fe80::11:22ff:fe33:4455"), addr("2001:db8::11:22ff:fe33:4455")
		}, map[string]string{"ipv6 token": "", "ipv6 addr-gen-mode": "1", "ipv6 address-data": ""}},
		{"addresses of stable privacy", func(o *origin) { o.local, o.global = addr("fe80::a:b:c:d"), addr("2001:db8::1:2:3:4") },
			map[string]string{"ipv6 token": "::1:2:3:4", "ipv6 addr-gen-mode": "0", "ipv6 address-data": "fe80::a:b:c:d"}},
		{"a token already", func(o *origin) {
			o.profile["ipv6"]["token"], o.global = godbus.MakeVariant("::5"), addr("2001:db8::5")
		}, map[string]string{"ipv6 token": "::5"}},
		{"link-local alone", func(o *origin) { o.local = addr("fe80::a:b:c:d") },
			map[string]string{"ipv6 token": "", "ipv6 addr-gen-mode": "1", "ipv6 address-data": "fe80::a:b:c:d"}},
		{"link-local, given already", func(o *origin) {
			o.local = addr("fe80::a:b:c:d")
			o.profile["ipv6"]["address-data"] = godbus.MakeVariant([]properties{{"address": godbus.MakeVariant("fe80::a:b:c:d"), "prefix": godbus.MakeVariant(uint32(64))}})
		}, map[string]string{"ipv6 address-data": "fe80::a:b:c:d"}},
		{"IPv6 off", func(o *origin) {
			o.local, o.profile["ipv6"]["method"] = addr("fe80::a:b:c:d"), godbus.MakeVariant("disabled")
		}, map[string]string{"ipv6 address-data": "", "ipv6 token": ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := officeOrigin()
			c.change(&o)
			b, p := bridgeProfile(&o, "B", "gwb-eth0"), portProfile(&o, "P", "B")
			for _, key := range slices.Sorted(maps.Keys(c.want)) {
				setting, name, found := strings.Cut(key, " ")
				var v any
				switch {
				case !found:
					v = b["connection"][key].Value()
				case setting == "port":
					v = p[typeEthernet][name].Value()
				default:
					v = b[setting][name].Value()
				}
				got := fmt.Sprint(v)
				if list, ok := v.([]properties); ok {
					got = ""
					for _, e := range list {
						got += get[string](e, "address")
					}
				} else if v == nil {
					got = ""
				}
				if got != c.want[key] {
					t.Errorf("%s is %q, want %q", key, got, c.want[key])
				}
			}
		})
	}
}

func TestPresence(t *testing.T) {
	full := presence{addresses: []netip.Prefix{net4("10.1.0.5/24"), net4("2001:db8::5/64")}, default4: true, default6: true}
	for _, c := range []struct {
		name        string
		want, have  presence
		lack, lack6 string
	}{
		{"all back", full, full, "", ""},
		{"more than before", presence{}, full, "", ""},
		{"nothing back", full, presence{}, "no IPv4 address", "no IPv6 address"},
		{"another address", full, presence{addresses: []netip.Prefix{net4("10.1.0.6/24"), net4("2001:db8::6/64")}},
			"address 10.1.0.5/24 is not back", "address 2001:db8::5/64 is not back"},
		{"no routes", full, presence{addresses: full.addresses}, "no IPv4 default route", "no IPv6 default route"},
	} {
		if lack, lack6 := c.want.lacks(c.have, false), c.want.lacks(c.have, true); lack != c.lack || lack6 != c.lack6 {
			t.Errorf("%s: %q and %q, want %q and %q", c.name, lack, lack6, c.lack, c.lack6)
		}
	}
	p := presence{addresses: []netip.Prefix{net4("10.1.0.5/24"), net4("10.1.0.6/24"), net4("10.1.0.7/24"), net4("10.1.0.8/32")},
		forever: []netip.Prefix{net4("10.1.0.6/24"), net4("10.1.0.7/24"), net4("10.1.0.8/32")}}
	p = p.configured(profileOf(map[string]map[string]any{"ipv4": {"address-data": []properties{
		{"address": godbus.MakeVariant("10.1.0.6"), "prefix": godbus.MakeVariant(uint32(24))}}}}), addr("10.1.0.7"))
	if got := fmt.Sprint(p.addresses); got != "[10.1.0.5/24 10.1.0.6/24 10.1.0.7/24]" {
		t.Errorf("configured are %s", got)
	}
}
