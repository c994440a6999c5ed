package uplink

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"gangway/service/vnet"
)

// upstreams makes of DnsManager's configuration the servers that answer for certain
// domains only: those of links other than the primary, whose own are for everything.
//
// A domain with "~" is for routing queries only, here no different; "~." would be
// everything and is left out. A domain that the primary's servers have, too, stays with them. A
// negative priority excludes all entries of a higher number (nm-settings(5), dns-priority).
func upstreams(entries []dnsEntry, primary string) []vnet.Upstream {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b dnsEntry) int { return cmp.Compare(a.priority, b.priority) })
	own := map[string]bool{}
	for _, e := range entries {
		if e.ifname == primary {
			for _, d := range routedDomains(e.domains) {
				own[d] = true
			}
		}
	}
	var out []vnet.Upstream
	for _, e := range entries {
		if entries[0].priority < 0 && e.priority > entries[0].priority {
			break
		}
		if e.ifname == "" || e.ifname == primary {
			continue
		}
		domains := slices.DeleteFunc(routedDomains(e.domains), func(d string) bool { return own[d] })
		if len(domains) == 0 {
			continue
		}
		for _, a := range e.servers {
			if a.IsLoopback() {
				continue // a resolver on the host, bound to no interface
			}
			out = append(out, vnet.Upstream{Address: zoned(a, e.ifname), Interface: e.ifname, Domains: slices.Clone(domains)})
		}
	}
	return out
}

// routedDomains returns the domains in the form that vnet.Upstream has: no marks, no dots
// at the ends, lower case, each once.
func routedDomains(domains []string) []string {
	var out []string
	for _, d := range domains {
		d = strings.ToLower(strings.Trim(strings.TrimPrefix(d, "~"), "."))
		if d != "" && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// parseResolvConf returns the nameservers of resolv.conf(5), in order.
func parseResolvConf(text string) []netip.Addr {
	var out []netip.Addr
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a := parseAddr(fields[1]); a.IsValid() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// stubOf returns the first nameserver that is the host's own: systemd-resolved's
// 127.0.0.53, or another resolver on the loopback.
func stubOf(resolv []netip.Addr) netip.Addr {
	for _, a := range resolv {
		if a.IsLoopback() {
			return a
		}
	}
	return netip.Addr{}
}
