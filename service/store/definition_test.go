package store

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gangway/service/vnet"
)

func TestParseNamesLineAndKey(t *testing.T) {
	host := "[[dhcp-hosts]]\nmac = \"52:54:00:00:00:%02d\"\nhostname = \"h%d\"\n"
	var hosts strings.Builder
	for i := range 9 {
		fmt.Fprintf(&hosts, host, i, i)
	}
	tests := []struct {
		name, text string
		line       int
		key        string
		message    string
	}{
		{"unknown key", "# hello\nautostart = true\n\nauto-start = true\n", 4, "auto-start", "is not a setting"},
		{"unknown table", "mtu = 1400\n[ipv4]\nsubnet = \"auto\"\n", 2, "ipv4", "is not a setting"},
		{"dotted key", "mtu = 1400\n\nipv4.subnet = \"auto\"\n", 3, "ipv4", "is not a setting"},
		{"case matters", "MTU = 1400\n", 1, "MTU", "is not a setting"},
		{"first of several", "x = 1\na = 2\n", 1, "x", "is not a setting"},
		{"text for boolean", "\nautostart = \"yes\"\n", 2, "autostart", "must be a boolean, is a string"},
		{"number for boolean", "dhcp = 1\n", 1, "dhcp", "must be a boolean, is an unsigned"},
		{"boolean for text", "domain = true\n", 1, "domain", "must be a string, is a boolean"},
		{"date for text", "domain = 2026-01-01\n", 1, "domain", "must be a string"},
		{"fraction for number", "mtu = 1400.0\n", 1, "mtu", "must be an unsigned 32-bit number"},
		{"negative number", "mtu = -1\n", 1, "mtu", "-1 is not an unsigned 32-bit number"},
		{"number beyond 32 bits", "mtu = 4294968696\n", 1, "mtu", "is not an unsigned 32-bit number"},
		{"number beyond 64 bits", "\nmtu = 99999999999999999999\n", 2, "mtu", "out of range"},
		{"out of range", "dhcp = true\nmtu = 100\n", 2, "mtu", "neither 0"},
		{"not one of", "vpn = \"maybe\"\n", 1, "vpn", "is not one of"},
		{"not global", "\n\nipv6-prefix = \"fe80::/64\"\n", 3, "ipv6-prefix", "neither global"},
		{"path for interface", "uplink = \"../x\"\n", 1, "uplink", "interface name"},
		{"newline in interface", "uplink = \"a\\nb\"\n", 1, "uplink", "interface name"},
		{"twice", "mtu = 1400\nmtu = 1400\n", 2, "mtu", "already been defined"},
		{"no value", "mtu = 1400\nvpn =\n", 2, "vpn", "expected value"},
		{"not closed", "domain = \"x\n", 1, "domain", "newlines"},
		{"nul", "\nx = \"\x00\"", 2, "x", "control characters"},
		{"hosts aren't a table", "dhcp-hosts = \"52:54:00:00:00:01\"\n", 1, "dhcp-hosts", "must be an array"},
		{"hosts are one table", "[dhcp-hosts]\nmac = \"52:54:00:00:00:01\"\n", 1, "dhcp-hosts", "must be an array"},
		{"hosts of mixed types", "dhcp-hosts = [{mac = \"52:54:00:00:00:01\"}, 1]\n", 1, "dhcp-hosts", "must be an array"},
		{"second host of three", fmt.Sprintf(host, 1, 1) + "[[dhcp-hosts]]\nmac = \"x\"\n" + fmt.Sprintf(host, 2, 2),
			4, "dhcp-hosts", `"x" is not a unicast`},
		{"host stands twice", hosts.String() + fmt.Sprintf(host, 3, 9) + fmt.Sprintf(host, 10, 10),
			28, "dhcp-hosts", "stands twice"},
		{"host outside the subnet", "ipv4-subnet = \"10.0.0.0/24\"\n[[dhcp-hosts]]\nmac = \"52:54:00:00:00:01\"\naddress = \"10.0.1.1\"\n",
			2, "dhcp-hosts", "is not a guest's in"},
		{"unknown key in a host", "mtu = 0\n[[ \"dhcp-hosts\" ]] # x\nmac = \"52:54:00:00:00:01\"\nname = \"x\"\n", 2, "dhcp-hosts", `unknown key "name"`},
		{"host inline", "mtu = 0\ndhcp-hosts = [{mac = \"52:54:00:00:00:01\"}]\n", 2, "dhcp-hosts", "neither"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			settings, err := parse("lab", test.text)
			var e *FileError
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want a *FileError", err)
			}
			if e.Line != test.line || e.Key != test.key || !strings.Contains(e.Error(), test.message) {
				t.Errorf("line %d, key %q, %q; want line %d, key %q, a message with %q",
					e.Line, e.Key, e.Error(), test.line, test.key, test.message)
			}
			if test.line > 0 && !strings.Contains(e.Error(), fmt.Sprintf("line %d: ", test.line)) {
				t.Errorf("%q doesn't name the line", e.Error())
			}
			if !reflect.DeepEqual(settings, vnet.DefaultSettings("lab")) {
				t.Errorf("settings %+v, want the defaults", settings)
			}
		})
	}
}

func TestParseAccepts(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":       "",
		"comments":      "# a\n\n  # b",
		"windows lines": "autostart = true\r\nvpn = \"follow\"\r\n",
		"byte order":    "\ufeffautostart = true\n",
		"quoted keys":   "\"autostart\" = true\n'mtu' = 0\n",
		"hex number":    "mtu = 0x0\n",
		"empty hosts":   "dhcp-hosts = []\n",
		"literal text":  "vpn = 'follow'\ndomain = '''lab.internal'''\n",
	} {
		settings, err := parse("lab", text)
		if err != nil || !reflect.DeepEqual(settings.Values(), vnet.DefaultSettings("lab").Values()) {
			t.Errorf("%s: %+v, %v; want the defaults", name, settings, err)
		}
	}
}

// The file is for people: this is what they see.
func TestRenderGolden(t *testing.T) {
	settings, err := vnet.DefaultSettings("lab").Merge(map[string]any{
		"bridge": "gway1", "ipv4-subnet": "192.168.231.0/24", "autostart": false, "mtu": uint32(1400),
		"dhcp-hosts": []map[string]any{
			{"mac": "52:54:00:00:00:01", "address": "192.168.231.9", "hostname": "build"},
			{"mac": "52:54:00:00:00:02", "hostname": "desk"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/lab.toml")
	if err != nil {
		t.Fatal(err)
	}
	if got := render("lab", settings); got != string(want) {
		t.Errorf("got\n%s\nwant (testdata/lab.toml)\n%s", got, want)
	}
	for _, f := range vnet.Fields() {
		if about[f.Key] == "" {
			t.Errorf("setting %q is not explained", f.Key)
		}
	}
}

// anySettings draws valid settings of a network.
func anySettings(t *rapid.T, name string) vnet.Settings {
	values := map[string]any{
		"autostart":     rapid.Bool().Draw(t, "autostart"),
		"bridge":        rapid.StringMatching(`|[A-Za-z0-9_][A-Za-z0-9_.-]{1,14}`).Filter(validBridge).Draw(t, "bridge"),
		"ipv4-method":   rapid.SampledFrom([]string{"nat", "routed", "isolated", "off"}).Draw(t, "ipv4-method"),
		"on-clash":      rapid.SampledFrom([]string{"renumber", "report"}).Draw(t, "on-clash"),
		"ipv6-method":   rapid.SampledFrom([]string{"auto", "link-local", "off"}).Draw(t, "ipv6-method"),
		"uplink":        rapid.SampledFrom([]string{"auto", "none", "wlan0", "enp0s31f6", "a.b-c_d"}).Draw(t, "uplink"),
		"vpn":           rapid.SampledFrom([]string{"follow", "bypass", "block"}).Draw(t, "vpn"),
		"domain":        rapid.StringMatching(`[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?(\.[a-z]{2,9}){0,3}\.(internal|test|Home)`).Draw(t, "domain"),
		"host-access":   rapid.SampledFrom([]string{"services", "all"}).Draw(t, "host-access"),
		"dhcp":          rapid.Bool().Draw(t, "dhcp"),
		"isolate-ports": rapid.Bool().Draw(t, "isolate-ports"),
		"mtu":           rapid.OneOf(rapid.Just(uint32(0)), rapid.Uint32Range(1280, 65535)).Draw(t, "mtu"),
		"ipv4-subnet":   rapid.SampledFrom([]string{"auto", "10.0.0.0/8", "192.168.231.0/24", "100.64.3.8/29"}).Draw(t, "ipv4-subnet"),
	}
	var hosts []map[string]any
	for i := range rapid.IntRange(0, 5).Draw(t, "hosts") {
		host := map[string]any{"mac": fmt.Sprintf("52-54-00-00-AB-%02X", i)}
		if rapid.Bool().Draw(t, "named") {
			host["hostname"] = fmt.Sprintf("Guest-%d", i)
		}
		if host["hostname"] == nil || values["ipv4-subnet"] == "auto" {
			host["address"] = fmt.Sprintf("%s.%d", map[any]string{"auto": "10.1.1", "10.0.0.0/8": "10.9.9",
				"192.168.231.0/24": "192.168.231", "100.64.3.8/29": "100.64.3"}[values["ipv4-subnet"]], i+10)
		}
		hosts = append(hosts, host)
	}
	values["dhcp-hosts"] = hosts
	settings, err := vnet.DefaultSettings(name).Merge(values)
	if err != nil {
		t.Fatalf("drawn settings are invalid: %v", err)
	}
	return settings
}

func validBridge(name string) bool {
	return name == "" || vnet.ValidateInterfaceName("bridge", name) == nil
}

func TestEverySettingSurvivesSaveAndLoad(t *testing.T) {
	l := newLab(t)
	s := l.open(t)
	rapid.Check(t, func(t *rapid.T) {
		want := anySettings(t, "lab")
		if err := s.Save("lab", want); err != nil {
			t.Fatal(err)
		}
		list, err := s.Definitions()
		if err != nil || len(list) != 1 || list[0].Problem != nil {
			t.Fatalf("%+v, %v", list, err)
		}
		if !reflect.DeepEqual(list[0].Settings, want) {
			t.Fatalf("loaded %+v\nsaved  %+v", list[0].Settings, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("")
	f.Add(render("lab", vnet.DefaultSettings("lab")))
	f.Add("a.b = 1\n[[dhcp-hosts]]\nmac = \"52:54:00:00:00:01\"\nhostname = \"x\"\n[[dhcp-hosts]]\n")
	f.Add("dhcp-hosts = [{mac = \"52:54:00:00:00:01\", address = \"10.0.0.2\"}, [], 1.5, 2026-01-01]\n")
	f.Add("mtu = 0xffff\ndomain = \"\"\"\n[[dhcp-hosts]]\"\"\"\n[[[")
	f.Fuzz(func(t *testing.T, text string) {
		settings, err := parse("lab", text)
		if err != nil {
			var e *FileError
			if !errors.As(err, &e) {
				t.Fatalf("error %v is not a *FileError", err)
			}
			if lines := strings.Count(text, "\n") + 1; e.Line < 0 || e.Line > lines {
				t.Fatalf("line %d of %d: %v", e.Line, lines, err)
			}
			return
		}
		if err := reparse("lab", render("lab", settings), settings); err != nil {
			t.Fatalf("what was accepted can't be saved: %v", err)
		}
	})
}
