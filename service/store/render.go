package store

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"gangway/service/vnet"
)

// about explains each setting in the files that we write.
var about = map[string]string{
	"autostart":      "Start the network with the daemon: true or false.",
	"bridge":         "The bridge's interface name; empty: chosen when the network is first started.",
	"ipv4-method":    `IPv4: "nat", "routed" (no translation), "isolated" (no way out) or "off".`,
	"ipv4-subnet":    `The guests' IPv4 subnet such as "192.168.231.0/24", or "auto".`,
	"on-clash":       `When an uplink uses the same subnet: "renumber" the guests, or only "report".`,
	"ipv6-method":    `IPv6: "auto", "bridge", "proxy", "routed", "nat66", "link-local" or "off".`,
	"inbound":        `New IPv6 connections from the uplink to guests: "deny" or "allow".`,
	"uplink":         `The way out: "auto" (the host's), "none", or an interface's name.`,
	"vpn":            `When the host's default route is a VPN's: "follow" it, "bypass" it, or "block".`,
	"domain":         "The guests' DNS domain.",
	"ipv6-prefix":    `The prefix that "routed" takes the guests' /64 of: "auto" (what is delegated to the uplink) or one of /32 to /64.`,
	"nat66-fallback": "Translate IPv6 where no better method works: true or false.",
	"host-access":    `What guests reach on the host: "services" (DHCP, DNS, ping) or "all".`,
	"dhcp":           "Serve IPv4 addresses to guests: true or false.",
	"dhcp-hosts":     "Guests with a reserved address, a name, or both, one table each.",
	"isolate-ports":  "Keep guests from reaching each other: true or false.",
	"mtu":            "The guests' MTU in bytes, 1280 to 65535; 0: the uplink's.",
}

// render writes the definition of a network for people: every setting is explained, and
// those with their default are commented out.
func render(name string, settings vnet.Settings) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The definition of Gangway's network %q.\n", name)
	b.WriteString("# It is read when the daemon starts or reloads (systemctl reload gangway), so edits by hand\n" +
		"# are in force from then on. A change over D-Bus writes the file anew, without comments of yours.\n" +
		"# A setting that is commented out has the default that is shown.\n")
	defaults := vnet.DefaultSettings(name)
	for _, f := range vnet.Fields() {
		if _, ok := f.Get(settings).([]map[string]any); ok {
			continue // tables go last: what follows a table's header would be in it
		}
		value, comment := f.Get(settings), ""
		if reflect.DeepEqual(value, f.Get(defaults)) {
			comment = "#"
		}
		fmt.Fprintf(&b, "\n# %s\n%s%s = %s\n", about[f.Key], comment, f.Key, literal(value))
	}
	for _, f := range vnet.Fields() {
		if list, ok := f.Get(settings).([]map[string]any); ok {
			renderTables(&b, f.Key, list)
		}
	}
	return b.String()
}

func renderTables(b *strings.Builder, key string, list []map[string]any) {
	fmt.Fprintf(b, "\n# %s\n", about[key])
	if len(list) == 0 {
		fmt.Fprintf(b, "#[[%s]]\n#mac = \"52:54:00:12:34:56\"\n#address = \"192.168.231.10\"\n#hostname = \"build\"\n", key)
	}
	for i, entry := range list {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(b, "[[%s]]\n", key)
		for _, k := range []string{"mac", "address", "hostname"} {
			if v, ok := entry[k]; ok {
				fmt.Fprintf(b, "%s = %s\n", k, literal(v))
			}
		}
	}
}

// literal writes a value in TOML. A valid setting is printable ASCII, of which Go and TOML
// quote the same characters in the same way.
func literal(v any) string {
	if text, ok := v.(string); ok {
		return strconv.Quote(text)
	}
	return fmt.Sprint(v)
}
