package firewall

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

const (
	allNodes = "33:33:00:00:00:01"
	lanMAC   = "02:33:33:33:33:33" // of nobody: it is flooded
	local    = "fe80::99"
	all      = "ff02::1"
)

// frames are what guests may send, and by which rule what they may not is dropped; "" for what passes.
func frames() []struct {
	name, drop string
	frame      []byte
} {
	toAll := func(layers ...layer) []byte { return ether6(allNodes, packet(local, all, layers...)) }
	toOne := func(layers ...layer) []byte {
		return ether6(lanMAC, packet("2001:db8:a::10", "2001:db8:a::1", layers...))
	}
	ra := toAll(advertisement())
	const icmp, udp = unix.IPPROTO_ICMPV6, unix.IPPROTO_UDP
	truncated := func(length int, b []byte) []byte { return bytes.Clone(b[:length]) }
	// The payload length says less than is there.
	trailer := func(length byte, b []byte) []byte {
		b = bytes.Clone(b)
		b[14+4], b[14+5] = 0, length
		return b
	}
	version := bytes.Clone(ra)
	version[14] = 0x40
	const ethernetHeader = 14
	return []struct {
		name, drop string
		frame      []byte
	}{
		{"ARP", "not IPv6", ethernet("ff:ff:ff:ff:ff:ff", unix.ETH_P_ARP, make([]byte, 28))},
		{"IPv4", "not IPv6", ethernet(lanMAC, unix.ETH_P_IP, append([]byte{0x45, 0, 0, 20}, make([]byte, 16)...))},
		{"VLAN", "not IPv6", tagged(unix.ETH_P_8021Q, toOne(icmp6(128)))},
		{"priority tag", "not IPv6", func() []byte { b := tagged(unix.ETH_P_8021Q, toOne(icmp6(128))); b[15] = 0; return b }()},
		{"802.1ad", "not IPv6", tagged(unix.ETH_P_8021AD, toOne(icmp6(128)))},
		{"VLAN in VLAN", "not IPv6", tagged(unix.ETH_P_8021AD, tagged(unix.ETH_P_8021Q, ra))},
		{"VLAN with advertisement", "not IPv6", tagged(unix.ETH_P_8021Q, ra)},
		{"STP", "not IPv6", ethernet("01:80:c2:00:00:00", 38, append([]byte{0x42, 0x42, 3}, make([]byte, 40)...))},
		{"LLDP", "not IPv6", ethernet("01:80:c2:00:00:0e", unix.ETH_P_LLDP, make([]byte, 46))},
		{"EAPOL", "not IPv6", ethernet("01:80:c2:00:00:03", unix.ETH_P_PAE, make([]byte, 46))},
		{"PPPoE", "not IPv6", ethernet("ff:ff:ff:ff:ff:ff", unix.ETH_P_PPP_DISC, make([]byte, 46))},
		{"IPv6 behind LLC", "not IPv6", ethernet(allNodes, 0x50, append([]byte{0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd}, ra[ethernetHeader:]...))},
		{"group source", "from a group address", func() []byte { b := toOne(icmp6(128)); b[6] = 3; return b }()},
		{"to the outer end", "to the link's own end", ether6("02:22:22:22:22:02", packet("2001:db8:a::10", "2001:db8:a::2", tcp6(2)))},

		{"echo request", "", toOne(icmp6(128))},
		{"echo reply", "", toOne(icmp6(129))},
		{"packet too big", "", toOne(icmp6(2))},
		{"MLD report behind hop-by-hop", "", toAll(hopByHop(), icmp6(143))},
		{"router solicitation", "", toAll(icmp6(133))},
		{"neighbour solicitation", "", toAll(icmp6(135, make([]byte, 16)...))},
		{"neighbour advertisement", "", toAll(icmp6(136, make([]byte, 16)...))},
		{"neighbour solicitation behind options", "", toAll(dstOpts(), icmp6(135, make([]byte, 16)...))},
		{"TCP", "", toOne(tcp6(2))},
		{"TCP behind options", "", toOne(dstOpts(), tcp6(2))},
		{"UDP", "", toOne(udp6(1000, 2000))},
		{"UDP behind options", "", toOne(hopByHop(), dstOpts(), routingHeader(), udp6(1000, 2000))},
		{"ESP", "", toOne(raw(unix.IPPROTO_ESP, make([]byte, 24)...))},
		{"SCTP", "", toOne(raw(unix.IPPROTO_SCTP, make([]byte, 12)...))},
		{"no next header", "", toOne()},
		{"multicast UDP", "", ether6("33:33:00:00:00:fb", packet(local, "ff02::fb", udp6(5353, 5353)))},
		{"DHCPv6 client", "", ether6("33:33:00:01:00:02", packet(local, "ff02::1:2", udp6(546, 547)))},
		{"first fragment of an echo", "", toOne(fragment(0, true), icmp6(128, make([]byte, 8)...))},
		{"second fragment of an echo", "", toOne(fragmentOf(icmp, 16, false), raw(0, make([]byte, 16)...))},
		{"first fragment of UDP", "", toOne(fragment(0, true), udp6(1000, 2000))},
		{"second fragment of UDP", "", toOne(fragmentOf(udp, 16, false), raw(0, make([]byte, 16)...))},
		{"first fragment of TCP", "", toOne(fragment(0, true), tcp6(2), raw(0, 1, 2, 3, 4))},
		{"first fragment of ESP", "", toOne(fragment(0, true), raw(unix.IPPROTO_ESP, make([]byte, 24)...))},
		{"atomic fragment of an echo", "", toOne(fragment(0, false), icmp6(128))},

		{"advertisement", "router advertisement", ra},
		{"advertisement to one", "router advertisement", ether6(lanMAC, packet(local, "fe80::1", advertisement()))},
		{"advertisement of no link-local", "router advertisement", ether6(allNodes, packet("2001:db8:a::10", all, advertisement()))},
		{"advertisement with a trailer", "router advertisement", append(bytes.Clone(ra), make([]byte, 20)...)},
		{"redirect", "redirect", ether6(lanMAC, packet(local, "2001:db8:a::1", icmp6(137, make([]byte, 32)...)))},
		{"advertisement behind hop-by-hop", "router advertisement", toAll(hopByHop(), advertisement())},
		{"advertisement behind destination options", "router advertisement", toAll(dstOpts(), advertisement())},
		{"advertisement behind long options", "router advertisement", toAll(behind(unix.IPPROTO_DSTOPTS, 64), advertisement())},
		{"advertisement behind routing", "router advertisement", toAll(routingHeader(), advertisement())},
		{"advertisement behind many", "router advertisement", toAll(hopByHop(), dstOpts(), routingHeader(), dstOpts(), dstOpts(), dstOpts(), dstOpts(), advertisement())},
		{"redirect behind options", "redirect", toAll(hopByHop(), dstOpts(), icmp6(137, make([]byte, 32)...))},
		{"advertisement behind AH", "behind AH", toAll(authentication(), advertisement())},
		{"advertisement behind options and AH", "behind AH", toAll(dstOpts(), authentication(), dstOpts(), advertisement())},
		{"advertisement behind Mobility", "behind Mobility", toAll(behind(protocolMobility, 1), advertisement())},
		{"advertisement behind HIP", "behind HIP", toAll(behind(protocolHIP, 1), advertisement())},
		{"advertisement behind Shim6", "behind Shim6", toAll(behind(protocolShim6, 1), advertisement())},

		{"advertisement in an atomic fragment", "router advertisement", toAll(fragment(0, false), advertisement())},
		{"first fragment of an advertisement", "router advertisement", toAll(fragment(0, true), advertisement())},
		{"solicitation in a fragment", "fragment of neighbour discovery", toAll(fragment(0, false), icmp6(135, make([]byte, 16)...))},
		{"neighbour advertisement in a fragment", "fragment of neighbour discovery", toAll(fragment(0, true), icmp6(136, make([]byte, 16)...))},
		{"router solicitation in a fragment", "fragment of neighbour discovery", toAll(fragment(0, true), icmp6(133))},
		{"first fragment with options alone", "fragment of a header chain", toAll(fragment(0, true), dstOpts())},
		{"second fragment behind options", "fragment of a header chain", toAll(fragmentOf(unix.IPPROTO_DSTOPTS, 8, false), advertisement())},
		{"second fragment behind routing", "fragment of a header chain", toAll(fragmentOf(unix.IPPROTO_ROUTING, 8, false), advertisement())},
		{"second fragment behind hop-by-hop", "fragment of a header chain", toAll(fragmentOf(unix.IPPROTO_HOPOPTS, 8, false), advertisement())},
		{"second fragment behind AH", "header chain not whole", toAll(fragmentOf(unix.IPPROTO_AH, 8, false), advertisement())},
		{"fragment in a fragment", "fragment of a header chain", toAll(fragment(0, false), fragment(8, false), advertisement())},
		{"fragment behind hop-by-hop", "fragment header behind another", toAll(hopByHop(), fragment(0, true), icmp6(128, make([]byte, 8)...))},
		{"second fragment behind hop-by-hop's", "fragment header behind another", toAll(hopByHop(), fragmentOf(icmp, 8, false), advertisement())},
		{"first fragment, type in the second", "fragment with less than a header", toAll(fragmentOf(icmp, 0, true))},
		// The type that is seen is in the trailer: the receiver takes it from the second fragment.
		{"first fragment, type in the trailer", "fragment with less than a header", trailer(8, toAll(fragment(0, true), icmp6(128)))},
		{"first fragment, port in the trailer", "fragment with less than a header", trailer(12, toAll(fragment(0, true), udp6(1000, 2000)))},
		{"first fragment, flags in the trailer", "fragment with less than a header", trailer(8+16, toAll(fragment(0, true), tcp6(2), raw(0, 0, 0, 0, 0)))},

		{"DHCPv6 server", "from a DHCPv6 server or relay", toOne(udp6(547, 546))},
		{"DHCPv6 relay", "from a DHCPv6 server or relay", toOne(udp6(547, 547))},
		{"DHCPv6 server from another port", "to a DHCPv6 client", toOne(udp6(1000, 546))},
		{"DHCPv6 server behind options", "from a DHCPv6 server or relay", toOne(dstOpts(), udp6(547, 546))},
		{"DHCPv6 server in a fragment", "from a DHCPv6 server or relay", toOne(fragment(0, true), udp6(547, 546))},

		{"another version in it", "header chain not whole", version},
		{"half a header", "header chain not whole", truncated(ethernetHeader+20, ra)},
		{"less than its length", "header chain not whole", truncated(ethernetHeader+48, ra)},
		{"chain that ends early", "header chain not whole", truncated(ethernetHeader+41, trailer(1, toAll(dstOpts(), advertisement())))},
		{"ICMPv6 without a type", "header chain not whole", toAll(raw(icmp))},
		{"UDP without ports", "header chain not whole", toAll(raw(udp, 1, 2))},
		{"TCP without flags", "header chain not whole", toAll(raw(unix.IPPROTO_TCP, 1, 2, 3, 4))},
	}
}

// What a guest sends passes or is dropped, and counted, by the rule that is meant for it.
func TestGuardFrames(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	from, far := d.host.station(inner), d.lan.station("eth0")
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	before := d.host.dropped("default-outer")
	want := map[string]int{}
	for i, f := range frames() {
		from.send(i, f.frame)
		if f.drop != "" {
			want[f.drop]++
		}
	}
	got := map[string]int{}
	settled := func() bool {
		got = d.host.dropped("default-outer")
		for name, count := range got {
			if got[name] = count - before[name]; got[name] == 0 {
				delete(got, name)
			}
		}
		return cmp.Equal(got, want)
	}
	for i, f := range frames() {
		if f.drop == "" {
			eventually(t, f.name+" passes", func() bool { return far.count(i) > 0 })
		}
	}
	for deadline := patienceEnds(); !settled(); {
		if deadline() {
			t.Fatalf("dropped by rule (-want +got):\n%s", cmp.Diff(want, got))
		}
	}
	for i, f := range frames() {
		if count := far.count(i); f.drop != "" && count != 0 {
			t.Errorf("%s has passed", f.name)
		} else if f.drop == "" && count != 1 {
			t.Errorf("%s has passed %d times", f.name, count)
		}
	}

	// Without the guard all of it arrives that a bridge forwards: the test shows something.
	apply(t, d.firewall, plan.DeleteGuard{Network: "default"})
	for i, f := range frames() {
		from.send(1000+i, f.frame)
	}
	for i, f := range frames() {
		switch f.name {
		case "STP", "LLDP", "EAPOL", "group source", "to the outer end": // that no bridge forwards
		default:
			eventually(t, f.name+" passes without guard", func() bool { return far.count(1000+i) > 0 })
		}
	}
}

// Towards guests nothing passes but IPv6.
func TestGuardTowardsGuests(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	far, guest := d.lan.station("eth0"), d.guest.station("eth0")
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	sent, passes := 0, 0
	for i, f := range frames() {
		switch f.name {
		case "STP", "LLDP", "EAPOL", "group source", "to the outer end", "half a header":
			continue
		}
		far.send(i, f.frame)
		if f.drop == "not IPv6" {
			sent++
			continue
		}
		passes++
		eventually(t, f.name+" passes", func() bool { return guest.count(i) > 0 })
	}
	eventually(t, "all are counted", func() bool { return d.host.dropped("default-inner")["not IPv6"] >= sent })
	for i, f := range frames() {
		if f.drop == "not IPv6" && guest.count(i) > 0 {
			t.Errorf("%s has passed", f.name)
		}
	}
	if sent < 5 || passes < 50 {
		t.Errorf("%d dropped and %d passed: the test shows nothing", sent, passes)
	}
}

// Real stacks reach each other by IPv6, by nothing else.
func TestGuardedLink(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	for _, n := range []*namespace{d.guest, d.lan, d.host} {
		n.serve("[::]:7")
	}
	if !d.guest.pings("2001:db8:a::1") || !d.lan.pings("2001:db8:a::10") {
		t.Fatal("no echo")
	}
	if !d.guest.pings("2001:db8:a::1", "-s", "20000") || !d.lan.pings("2001:db8:a::10", "-s", "20000") {
		t.Error("no echo that comes in fragments")
	}
	both(t, d.guest, "[2001:db8:a::1]:7", "2001:db8:a::10", "2001:db8:a::10")
	both(t, d.lan, "[2001:db8:a::10]:7", "2001:db8:a::1", "2001:db8:a::1")
	both(t, d.guest, "[2001:db8:a::2]:7", "2001:db8:a::10", "2001:db8:a::10")
	both(t, d.host, "[2001:db8:a::10]:7", "2001:db8:a::2", "2001:db8:a::2")
	if _, err := d.guest.try("ping", "-4", "-c1", "-W1", "10.0.0.1"); err == nil {
		t.Error("IPv4 passes")
	}
	if _, err := d.guest.try("ping", "-4", "-c1", "-W10", "10.0.0.11"); err != nil {
		t.Errorf("among guests: %v", err)
	}
}
