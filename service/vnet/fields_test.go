package vnet

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// hostile are texts that must never get through a setting that isn't free text: each would
// mean something to a path, a shell, a file that we write, or a line of a protocol.
var hostile = []string{
	"../", "..", ".", "/", "a/b", "../../etc/passwd", "a b", " a", "a ", "\t", "a\nb", "a\n", "\n", "a\r", "a;b", "a,b", "a=b", "a#b",
	"a\x00", "\x00", "a\x7f", "\x1b[0m", "a'b", `a"b`, "a`b", "a$b", "a&b", "a|b", "a*b", "a%b", "a:b", "a@b", "-a", "--help",
	"ä", "a\xff", "\u202e", "a\u2028b", "𝔞", strings.Repeat("a", 300), "",
}

// allowed lists which of the hostile texts are harmless in a field.
var allowed = map[string][]string{
	"bridge": {""}, // none chosen yet
}

func mac(n int) string { return fmt.Sprintf("52:54:00:00:%02x:%02x", n>>8, n&255) }

func host(pairs ...string) map[string]any {
	entry := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		entry[pairs[i]] = pairs[i+1]
	}
	return entry
}

func manyHosts(n int) []map[string]any {
	var list []map[string]any
	for i := range n {
		list = append(list, host("mac", mac(i), "hostname", fmt.Sprintf("h%d", i)))
	}
	return list
}

// values of each field: what is accepted, and what isn't although it has the right type.
var values = map[string]struct{ good, bad []any }{
	"autostart":   {good: []any{true, false}},
	"bridge":      {good: texts("gway0", "br-1", "a", "a.b_c", "Bridge15letters"), bad: texts("Bridge16letterss", "all", "default", "lo")},
	"ipv4-method": {good: texts("nat", "routed", "isolated", "off"), bad: texts("NAT", "auto", "nat ")},
	"ipv4-subnet": {
		good: texts("auto", "10.0.0.0/8", "10.1.2.0/24", "172.16.0.0/12", "172.31.255.248/29", "192.168.0.0/16", "192.168.231.0/24",
			"100.64.0.0/10", "198.18.0.0/15", "192.0.2.0/24", "198.51.100.128/25", "203.0.113.0/29"),
		bad: texts("Auto", "none", "10.0.0.0", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/-1", "10.0.0.0/33", "10.0.0.0/024", "10.0.0.0/30",
			"10.0.0.0/31", "10.0.0.0/32", "10.0.0.1/24", "10.0.0.128/24", "8.8.8.0/24", "0.0.0.0/0", "0.0.0.0/8", "127.0.0.0/8",
			"127.0.0.0/24", "169.254.0.0/16", "224.0.0.0/24", "240.0.0.0/8", "255.255.255.248/29", "172.32.0.0/16", "172.0.0.0/8",
			"192.168.0.0/15", "192.169.0.0/24", "100.128.0.0/24", "100.0.0.0/8", "192.0.0.0/16", "fd00::/64", "::/0", "::ffff:10.0.0.0/104",
			"::ffff:10.0.0.0/120", "fe80::%eth0/64", "010.0.0.0/8", "10.0.0/24", "10.0.0.0/255.0.0.0", "10.0.0.0/24\n", "10.0.0.0/24,10.1.0.0/24"),
	},
	"on-clash":    {good: texts("renumber", "report"), bad: texts("ignore")},
	"ipv6-method": {good: texts("auto", "bridge", "proxy", "routed", "nat66", "link-local", "off"), bad: texts("on", "nat")},
	"ipv6-prefix": {good: texts("auto", "2001:db8:1:2::/64", "2001:db8::/32", "2001:db8:1200::/40", "fd12:3456:789a::/48", "fd00::/64"),
		bad: texts("Auto", "none", "2001:db8::", "2001:db8::/65", "2001:db8::/128", "2001::/31", "2001:db8:1:2::1/64", "2001:db8:1:2::/48", "fe80::/64",
			"ff02::/64", "::/64", "::1/128", "::/0", "64:ff9b::/64", "10.0.0.0/24", "::ffff:10.0.0.0/104", "2001:db8:1::/64%eth0", "2001:db8:1::/64\n")},
	"inbound":        {good: texts("deny", "allow"), bad: texts("Deny")},
	"uplink":         {good: texts("auto", "none", "wlan0", "enp0s31f6", "eth0.100"), bad: texts("wlan0wlan0wlan00", "lo", "all")},
	"vpn":            {good: texts("follow", "bypass", "block"), bad: texts("auto")},
	"nat66-fallback": {good: []any{true, false}},
	"host-access":    {good: texts("services", "all"), bad: texts("none")},
	"domain": {
		good: texts("lab", "lab.internal", "a.b.c", "xn--bcher-kva.example", "1.2", "Lab.Internal", "locals", "local.net",
			strings.Repeat("a", 63), strings.Repeat("a", 63)+"."+strings.Repeat("b", 63)+"."+strings.Repeat("c", 63)+"."+strings.Repeat("d", 61)),
		bad: texts("local", "localhost", "Local", "lab.local", "LAB.LOCAL", "x.localhost", "a..b", ".a", "a.", "a_b", "a-", "-a", "a.-b", "a-.b",
			strings.Repeat("a", 64), strings.Repeat("a.", 126)+"aa"),
	},
	"dhcp": {good: []any{true, false}},
	"dhcp-hosts": {
		good: []any{
			[]map[string]any{},
			[]map[string]any{host("mac", mac(1), "address", "192.168.231.9")},
			[]map[string]any{host("mac", "52-54-00-00-00-0A", "hostname", "Build")},
			[]map[string]any{host("mac", mac(1), "hostname", "a"), host("mac", mac(2), "hostname", "b")},
			manyHosts(MaxDHCPHosts),
		},
		bad: []any{
			[]map[string]any{nil},
			[]map[string]any{{}},
			[]map[string]any{host("mac", mac(1))},
			[]map[string]any{host("hostname", "a")},
			[]map[string]any{host("mac", mac(1), "hostname", "a", "ip", "10.0.0.1")},
			[]map[string]any{{"mac": mac(1), "hostname": 1}},
			[]map[string]any{{"mac": 1}},
			[]map[string]any{host("mac", "01:00:5e:00:00:01", "hostname", "a")}, // multicast
			[]map[string]any{host("mac", "ff:ff:ff:ff:ff:ff", "hostname", "a")},
			[]map[string]any{host("mac", "00:00:00:00:00:00", "hostname", "a")},
			[]map[string]any{host("mac", "02:00:5e:10:00:00:00:01", "hostname", "a")}, // EUI-64
			[]map[string]any{host("mac", "52:54:00:00:00", "hostname", "a")},
			[]map[string]any{host("mac", mac(1)+",x", "hostname", "a")},
			[]map[string]any{host("mac", mac(1), "address", "fd00::1")},
			[]map[string]any{host("mac", mac(1), "address", "::ffff:10.0.0.1")},
			[]map[string]any{host("mac", mac(1), "address", "10.0.0.1/24")},
			[]map[string]any{host("mac", mac(1), "address", "10.0.0.1\n")},
			[]map[string]any{host("mac", mac(1), "hostname", "a"), host("mac", mac(1), "hostname", "b")},
			[]map[string]any{host("mac", mac(1), "hostname", "a"), host("mac", strings.ToUpper(mac(1)), "hostname", "b")},
			[]map[string]any{host("mac", mac(1), "hostname", "a"), host("mac", mac(2), "hostname", "A")},
			[]map[string]any{host("mac", mac(1), "address", "10.0.0.9"), host("mac", mac(2), "address", "10.0.0.9")},
			manyHosts(MaxDHCPHosts + 1),
		},
	},
	"isolate-ports": {good: []any{true, false}},
	"mtu": {good: []any{uint32(0), uint32(1280), uint32(1500), uint32(9000), uint32(65535)},
		bad: []any{uint32(1), uint32(576), uint32(1279), uint32(65536), uint32(1<<32 - 1)}},
}

func texts(list ...string) []any {
	out := make([]any, len(list))
	for i, t := range list {
		out[i] = t
	}
	return out
}

// wrongTypes are values of types that no field takes.
var wrongTypes = []any{nil, 1, int64(1), uint64(1), uint16(1), 1.5, []byte("x"), []string{"x"}, []any{}, map[string]any{},
	map[string]string{}, struct{}{}, netip.MustParsePrefix("10.0.0.0/8"), new(string)}

// ofType is one value of each plain Go type, by signature.
var ofType = map[string]any{"b": true, "s": "auto", "u": uint32(0), "aa{sv}": []map[string]any{}}

func TestFieldsAreTheContract(t *testing.T) {
	want := []string{"autostart b", "bridge s", "ipv4-method s", "ipv4-subnet s", "on-clash s", "ipv6-method s", "ipv6-prefix s", "inbound s",
		"uplink s", "vpn s", "domain s", "nat66-fallback b", "host-access s", "dhcp b", "dhcp-hosts aa{sv}", "isolate-ports b", "mtu u"}
	var got []string
	for _, f := range Fields() {
		got = append(got, f.Key+" "+f.Signature)
		if reflect.TypeOf(f.Get(DefaultSettings("x"))) != reflect.TypeOf(ofType[f.Signature]) {
			t.Errorf("%s: Get returns %T, signature %s", f.Key, f.Get(DefaultSettings("x")), f.Signature)
		}
		if by, ok := FieldByKey(f.Key); !ok || by.Key != f.Key {
			t.Errorf("FieldByKey(%q): %v, %v", f.Key, by.Key, ok)
		}
		if _, ok := values[f.Key]; !ok {
			t.Errorf("%s has no table of values in this test", f.Key)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("fields\n%v, want\n%v", got, want)
	}
	if n := reflect.TypeFor[Settings]().NumField(); n != len(want) {
		t.Errorf("Settings has %d fields, %d are described", n, len(want))
	}
	if _, ok := FieldByKey("Autostart"); ok {
		t.Error("keys must not be found in another case")
	}
	Fields()[0].Key = "changed"
	if Fields()[0].Key != "autostart" {
		t.Error("Fields hands out the one list itself")
	}
}

func TestGoodValues(t *testing.T) {
	for key, v := range values {
		f, _ := FieldByKey(key)
		for _, good := range v.good {
			got, err := DefaultSettings("lab").Merge(map[string]any{key: good})
			if err != nil {
				t.Errorf("%s = %.60q: %v", key, fmt.Sprint(good), err)
				continue
			}
			if key != "dhcp-hosts" && !reflect.DeepEqual(f.Get(got), good) {
				t.Errorf("%s = %q became %q", key, good, f.Get(got))
			}
			// Only that setting changed.
			back, err := got.Merge(map[string]any{key: f.Get(DefaultSettings("lab"))})
			if err != nil || !reflect.DeepEqual(back, DefaultSettings("lab")) {
				t.Errorf("%s = %.60q and back: %+v, %v", key, fmt.Sprint(good), back, err)
			}
		}
	}
}

// refused checks that the value is an error of the kind that names the key, and changed nothing.
func refused(t *testing.T, key string, value any, kind ErrorKind) {
	t.Helper()
	before := DefaultSettings("lab")
	before.DHCPHosts = []DHCPHost{{MAC: mac(9), Hostname: "old"}}
	after, err := before.Merge(map[string]any{"mtu": uint32(1400), key: value})
	if key == "mtu" {
		after, err = before.Merge(map[string]any{"autostart": false, key: value})
	}
	var e *Error
	if !errors.As(err, &e) || e.Kind != kind || e.Key != key || !strings.Contains(e.Error(), fmt.Sprintf("%q", key)) {
		t.Errorf("%s = %.60q (%T): %v, want %s that names the key", key, fmt.Sprint(value), value, err, kind)
	}
	if strings.ContainsAny(fmt.Sprint(err), "\x00\n\x1b") {
		t.Errorf("%s: the error has control characters: %q", key, err)
	}
	if !reflect.DeepEqual(after, before) || before.MTU != 0 || !before.Autostart || before.DHCPHosts[0].MAC != mac(9) {
		t.Errorf("%s = %.60q: an error, and yet the settings changed to %+v", key, fmt.Sprint(value), after)
	}
}

func TestBadValues(t *testing.T) {
	for key, v := range values {
		f, _ := FieldByKey(key)
		for _, bad := range v.bad {
			refused(t, key, bad, InvalidSetting)
		}
		for _, bad := range wrongTypes {
			refused(t, key, bad, InvalidSetting)
		}
		for signature, bad := range ofType {
			if signature != f.Signature {
				refused(t, key, bad, InvalidSetting)
			}
		}
		for _, text := range hostile {
			switch {
			case f.Signature == "s" && !slices.Contains(allowed[key], text):
				refused(t, key, text, InvalidSetting)
			case key == "dhcp-hosts":
				refused(t, key, []map[string]any{host("mac", text, "hostname", "a")}, InvalidSetting)
				refused(t, key, []map[string]any{host("mac", mac(1), "hostname", text)}, InvalidSetting)
				refused(t, key, []map[string]any{host("mac", mac(1), "address", text)}, InvalidSetting)
				refused(t, key, []map[string]any{host("mac", mac(1), "hostname", "a", text, "x")}, InvalidSetting)
			}
		}
	}
	for _, key := range append(hostile, "Autostart", "ipv4_method", "name", "unknown") {
		refused(t, key, true, InvalidSetting)
	}
}

func TestHostsAreNormalised(t *testing.T) {
	got, err := DefaultSettings("lab").Merge(map[string]any{"dhcp-hosts": []map[string]any{
		host("mac", "52-54-00-AB-CD-EF", "hostname", "Build-1"), host("mac", "5254.00ab.cdee", "address", "10.0.0.9")}})
	want := []DHCPHost{{MAC: "52:54:00:ab:cd:ef", Hostname: "build-1"},
		{MAC: "52:54:00:ab:cd:ee", Address: netip.MustParseAddr("10.0.0.9")}}
	if err != nil || !reflect.DeepEqual(got.DHCPHosts, want) {
		t.Errorf("%+v, %v; want %+v", got.DHCPHosts, err, want)
	}
	if reflect.ValueOf(maps.Clone(got.Values())["dhcp-hosts"]).Len() != 2 {
		t.Errorf("Values: %v", got.Values()["dhcp-hosts"])
	}
}
