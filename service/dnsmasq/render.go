package dnsmasq

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// minLeaseTime is the least that dnsmasq grants; it silently raises less.
const minLeaseTime = 2 * time.Minute

// maxLeases bounds a server's memory in a large subnet.
const maxLeases = 65534

// paths are the files that a configuration refers to.
type paths struct{ dhcpHosts, names, leases string }

// renderConfig returns the configuration of the network's dnsmasq 2.89 or later. It is
// pure. A value that could end its line or its field is an error.
func renderConfig(spec plan.ServerSpec, p paths, who account) (string, error) {
	if err := checkSpec(spec, p, who); err != nil {
		return "", fmt.Errorf("cannot configure dnsmasq of %q: %w", spec.Network, err)
	}
	gateway, subnet := spec.Address.Addr(), spec.Address.Masked()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Made by Gangway for the network %s; changes are lost.", spec.Network)
	line("keep-in-foreground")
	line("log-facility=-")
	line("pid-file=")
	line("user=%s", who.user)
	line("group=%s", who.group)
	line("enable-dbus=%s", busName(spec.Network))
	line("")
	line("# Only on the bridge: bind-dynamic also checks by which interface a query came.")
	line("port=53")
	line("bind-dynamic")
	line("interface=%s", spec.Bridge)
	line("except-interface=lo")
	line("")
	line("# Nothing of the machine's own; upstreams come over the bus and empty the cache.")
	line("no-hosts")
	line("no-resolv")
	line("no-poll")
	line("clear-on-reload")
	line("no-ident")
	line("cache-size=1000")
	line("dns-forward-max=500")
	line("edns-packet-max=1232")
	line("proxy-dnssec")
	line("")
	line("# Names of ours are answered here or nowhere.")
	line("domain-needed")
	line("bogus-priv")
	line("domain=%s", spec.Domain)
	line("local=/%s/", spec.Domain)
	for _, zone := range reverseZones(subnet) {
		line("local=/%s/", zone)
	}
	line("host-record=gateway.%s,gateway,%s", spec.Domain, gateway)
	line("addn-hosts=%s", p.names)
	if !spec.First.IsValid() {
		return b.String(), nil
	}
	line("")
	line("dhcp-range=%s,%s,%s,%s,%d", spec.First, spec.Last, netmask(subnet),
		vnet.LastAddress(subnet), int(spec.LeaseTime/time.Second))
	line("dhcp-leasefile=%s", p.leases)
	line("dhcp-lease-max=%d", min(maxLeases, 1<<(32-subnet.Bits())-3))
	line("dhcp-hostsfile=%s", p.dhcpHosts)
	line("dhcp-authoritative")
	line("dhcp-rapid-commit")
	line("no-ping")
	line("quiet-dhcp")
	if spec.Router {
		line("dhcp-option=option:router,%s", gateway)
	} else {
		line("dhcp-option=option:router")
	}
	line("dhcp-option=option:dns-server,%s", gateway)
	if spec.MTU != 0 {
		line("dhcp-option=option:mtu,%d", spec.MTU)
	}
	line("# A guest must not become the others' proxy or localhost by its name (VU#598349).")
	for _, name := range []string{"wpad", "localhost", "gateway"} {
		line("dhcp-name-match=set:no-name,%s", name)
	}
	line("dhcp-ignore-names=tag:no-name")
	return b.String(), nil
}

// renderHosts returns the reservations (dhcp-hostsfile) and the names of those that have an
// address (addn-hosts), which are known before the guest is. It is pure.
func renderHosts(spec plan.ServerSpec) (dhcpHosts, names string, err error) {
	var hosts, lines strings.Builder
	for _, h := range spec.Hosts {
		if !plain(h.MAC) || h.MAC == "" || h.Hostname != "" && !plain(h.Hostname) || h.Address.Zone() != "" ||
			strings.ContainsAny(h.Hostname, ".:") {
			return "", "", fmt.Errorf("cannot configure dnsmasq of %q: reservation of %q is malformed", spec.Network, h.MAC)
		}
		hosts.WriteString(h.MAC)
		inside := h.Address.IsValid() && spec.Address.Masked().Contains(h.Address)
		if inside {
			hosts.WriteString("," + h.Address.String())
		}
		if h.Hostname != "" {
			// With the domain, since "2h" or "ignore" alone would mean something else.
			hosts.WriteString("," + h.Hostname + "." + spec.Domain)
		}
		hosts.WriteString("\n")
		if inside && h.Hostname != "" {
			fmt.Fprintf(&lines, "%s %s.%s %s\n", h.Address, h.Hostname, spec.Domain, h.Hostname)
		}
	}
	return hosts.String(), lines.String(), nil
}

func checkSpec(spec plan.ServerSpec, p paths, who account) error {
	if err := vnet.ValidateNetworkName(spec.Network); err != nil {
		return err
	}
	for _, v := range []string{spec.Bridge, spec.Domain, p.dhcpHosts, p.names, p.leases, who.user, who.group} {
		if !plain(v) {
			return fmt.Errorf("%q can't stand in a configuration", v)
		}
	}
	if !spec.Address.IsValid() || !spec.Address.Addr().Is4() || spec.Address.Bits() < 8 || spec.Address.Bits() > 29 {
		return fmt.Errorf("%s is not an IPv4 address with a prefix length of 8 to 29", spec.Address)
	}
	if !spec.First.IsValid() && !spec.Last.IsValid() {
		return nil
	}
	subnet := spec.Address.Masked()
	switch {
	case !subnet.Contains(spec.First) || !subnet.Contains(spec.Last) || spec.Last.Less(spec.First):
		return fmt.Errorf("%s to %s is not a range of %s", spec.First, spec.Last, subnet)
	case spec.LeaseTime < minLeaseTime:
		return fmt.Errorf("lease time %s is less than %s", spec.LeaseTime, minLeaseTime)
	case spec.MTU > 65535:
		return errors.New("MTU is more than 65535")
	}
	return nil
}

// plain tells whether a value means itself in dnsmasq's configuration: neither empty nor
// with anything that ends a line, a field, a name or a quotation.
func plain(v string) bool {
	for i := 0; i < len(v); i++ {
		if v[i] <= ' ' || v[i] >= 0x7f || strings.IndexByte("\"'\\#,*", v[i]) >= 0 {
			return false
		}
	}
	return v != ""
}

func netmask(p netip.Prefix) netip.Addr {
	mask := ^uint32(0) << (32 - p.Bits())
	return netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)})
}

// reverseZones returns the zones below in-addr.arpa (RFC 1035 3.5) that cover exactly the
// subnet: 128 at most. What is said for a zone further up, by a VPN for all of 10/8 for instance,
// doesn't reach them.
func reverseZones(subnet netip.Prefix) []string {
	labels := (subnet.Bits() + 7) / 8
	first := subnet.Masked().Addr().As4()
	var zones []string
	for i := range 1 << (labels*8 - subnet.Bits()) {
		octets := first
		octets[labels-1] += byte(i)
		var b strings.Builder
		for j := labels - 1; j >= 0; j-- {
			fmt.Fprintf(&b, "%d.", octets[j])
		}
		zones = append(zones, b.String()+"in-addr.arpa")
	}
	return zones
}
