package link

// setting is a sysctl of a link, below net/ipv6/conf/LINK/.
type setting struct{ key, value string }

// bridgeIPv6 keeps the host from configuring itself by what guests announce: it would gain
// addresses, and a default route into its guests. Nor do guests redirect it (RFC 4861 8.1), nor is
// the bridge a router before the plan wants it: each would be what the host's own defaults say,
// which may be "forwarding", and accept_ra 2 with it. What is left is the link-local address, made
// of the MAC address, which is ours to choose.
//
// That address may be the guests' router's: it is usable as soon as the bridge has a carrier, without duplicate
// address detection (RFC 4862 5.4), by which a guest could deny it. The kernel goes by the larger accept_dad of the
// link's and everybody's; so for the case that the latter is on, there is no probe, nor a pause before (it waits
// up to router_solicitation_delay).
var bridgeIPv6 = []setting{
	{"accept_dad", "0"}, {"dad_transmits", "0"}, {"router_solicitation_delay", "0"},
	{"accept_ra", "0"}, {"autoconf", "0"}, {"accept_redirects", "0"}, {"forwarding", "0"}, {"addr_gen_mode", "0"},
}

// endIPv6 leaves an end of a pair without IPv6 of its own: what it carries is the bridges'. The
// rest is for when somebody switches IPv6 on for all links (a VPN client that had switched it
// off): no address is made then (addr_gen_mode 1, IN6_ADDR_GEN_MODE_NONE).
var endIPv6 = []setting{{"disable_ipv6", "1"}, {"addr_gen_mode", "1"}, {"accept_ra", "0"}, {"autoconf", "0"}}

// quietIPv6 sets what differs. A kernel without IPv6 has nothing to keep quiet.
func quietIPv6(ifname string, settings []setting) error {
	for _, s := range settings {
		key := "net/ipv6/conf/" + ifname + "/" + s.key
		if _, exists, err := readSysctl(key); err != nil || !exists {
			if err != nil {
				return err
			}
			continue
		}
		if err := writeSysctl(key, s.value); err != nil {
			return err
		}
	}
	return nil
}
