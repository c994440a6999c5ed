package firewall

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// bridgeSpec is the guard of a laptop's bridge.
func bridgeSpec(retired ...string) plan.GuardSpec {
	spec := plan.GuardSpec{Network: "default", Bridge: "gway0"}
	for _, p := range retired {
		spec.Retired = append(spec.Retired, netip.MustParsePrefix(p))
	}
	return spec
}

// Who still speaks from a retired address learns at once that this leads nowhere, and the rest isn't hindered.
func TestGuardAtBridge(t *testing.T) {
	t.Parallel()
	l := newLaptop6(t, "iptables-nft")
	const retired = "2001:db8:f::10"
	l.alice.run("ip", "addr", "add", retired+"/128", "dev", "eth0", "nodad")
	apply(t, l.firewall, plan.SetGuard{Spec: bridgeSpec("2001:db8:e::/64", "2001:db8:f::/64")})
	works := func() {
		t.Helper()
		both(t, l.alice, "["+server6+"]:7", alice6, alice6)
		both(t, l.alice, server+":7", "192.0.2.2", "192.0.2.2")
		if !l.alice.pings("fe80::1%eth0") {
			t.Error("no echo from the router")
		}
		check{l.alice, "udp", "", "192.168.231.1:53", "192.168.231.10"}.run(t)
	}
	works() // the guest knows the router by now
	told := l.alice.errors6()
	check{l.alice, "tcp", retired, "[" + server6 + "]:7", refused}.run(t)
	check{l.alice, "udp", retired, "[" + server6 + "]:7", prohibited}.run(t)
	eventually(t, "code 5 for UDP", func() bool { return told(1, codePolicyFail) == 1 })
	if out, err := l.alice.try("ping", "-6", "-c1", "-W5", "-I", retired, server6); err == nil {
		t.Errorf("an echo from a retired address: %s", out)
	}
	eventually(t, "code 5 for an echo", func() bool { return told(1, codePolicyFail) == 2 })
	if got := l.host.dropped("default-refused"); got["retired: TCP"] != 1 || got["retired"] != 2 {
		t.Errorf("answered: %v", got)
	}
	works()

	// Somebody who flushes the guard cuts nobody off.
	l.host.run("nft", "flush", "chain", "netdev", plan.GuardTable, "default-bridge")
	works()

	// Among guests the bridge says nothing, and without the guard there is no such answer.
	l.bob.sh("ip -6 route add %s dev eth0; ip -6 addr add 2001:db8:f::11/128 dev eth0 nodad", retired)
	l.alice.run("ip", "-6", "route", "add", "2001:db8:f::11", "dev", "eth0")
	check{l.alice, "tcp", retired, "[2001:db8:f::11]:7", retired}.run(t)
	apply(t, l.firewall, plan.SetGuard{Spec: bridgeSpec()})
	check{l.alice, "tcp", retired, "[" + server6 + "]:7", silence}.run(t) // dropped as forged
	works()
	apply(t, l.firewall, plan.DeleteGuard{Network: "default"})
	works()
}

// What doesn't come whole, or isn't IPv6, is none of the guard's business, and errors aren't answered.
func TestGuardAtBridgeAccepts(t *testing.T) {
	t.Parallel()
	l := newLaptop6(t, "iptables-nft")
	apply(t, l.firewall, plan.SetGuard{Spec: bridgeSpec("2001:db8:f::/64")})
	bridge, err := net.InterfaceByName("gway0")
	must(t, err)
	to := bridge.HardwareAddr.String()
	// Bytes of an ARP request where IPv6 has its source.
	arp := ethernet("ff:ff:ff:ff:ff:ff", unix.ETH_P_ARP, packet("2001:db8:f::10", "2001:db8:a::1", udp6(1, 2)))
	from, up := l.alice.station("eth0"), l.host.station("gway0")
	from.send(1, arp)
	from.send(2, ether6(to, packet("2001:db8:f::10", server6, icmp6(1, make([]byte, 48)...))))
	from.send(3, ether6(to, packet("2001:db8:e::10", server6, udp6(1, 2))))
	eventually(t, "the error is counted", func() bool { return l.host.dropped("default-refused")["retired: error"] == 1 })
	eventually(t, "all came", func() bool { return up.count(1) == 1 && up.count(3) == 1 })
	if got := l.host.dropped("default-refused"); got["retired"] != 0 {
		t.Errorf("dropped: %v", got)
	}
}

// A network that changes its method has the one guard in the place of the other at once, and one of them.
func TestGuardChangesKind(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	link, bridge := guardSpec(), bridgeSpec("2001:db8:b::/64")
	link.Retired = bridge.Retired
	for round := range 3 {
		for _, spec := range []plan.GuardSpec{link, bridge, bridge} {
			generation, err := d.firewall.generation()
			must(t, err)
			apply(t, d.firewall, plan.SetGuard{Spec: spec})
			if got := d.guarded(t); got != spec.Digest() {
				t.Errorf("round %d: observed %q, want %q", round, got, spec.Digest())
			}
			if after, err := d.firewall.generation(); err != nil || after != generation+1 {
				t.Errorf("round %d: %d transactions, want one (%v)", round, after-generation, err)
			}
		}
	}
	if got := nftRuleset(d.host); strings.Contains(got, "default-outer") || strings.Contains(got, "default-inner") {
		t.Errorf("left of the link's guard:\n%s", got)
	}
	if got := observe(t, newFirewall(t, "iptables-legacy")).Guards["default"]; got != bridge.Digest() {
		t.Errorf("another process: %q", got)
	}
	for _, damage := range []string{
		"nft flush chain netdev gangway default-bridge", "nft flush chain netdev gangway default-refused",
		"nft add chain netdev gangway default-outer", "nft insert rule netdev gangway default-bridge accept",
		"nft add table netdev gangway '{ flags dormant; }'",
		"nft flush chain netdev gangway default-bridge; nft flush chain netdev gangway default-refused; nft delete chain netdev gangway default-refused",
		"nft delete table netdev gangway; nft add table netdev gangway '{ comment \"guards of gangwayd'\"'\"'s IPv6-only links\"; }'",
		"ip link set gway0 down; ip link set gway0 name gway7",
	} {
		d.host.sh("%s", damage)
		if got := d.guarded(t); got == bridge.Digest() {
			t.Errorf("%s: the guard is said to stand", damage)
		}
		d.host.sh("ip link set gway7 name gway0 2>/dev/null || :; ip link set gway0 up")
		apply(t, d.firewall, plan.SetGuard{Spec: bridge})
		if got := d.guarded(t); got != bridge.Digest() {
			t.Errorf("%s: mended, observed %q", damage, got)
		}
	}
	// A bridge that goes and comes is seen, too.
	d.host.sh("ip link del gway0")
	if got := d.guarded(t); got == bridge.Digest() {
		t.Error("without the bridge the guard is said to stand")
	}
	err := d.firewall.Apply(context.Background(), []plan.Op{plan.SetGuard{Spec: bridge}})[0].Err
	if want := `cannot guard bridge of "default": there is no interface "gway0"`; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	for _, change := range []func(*plan.GuardSpec){
		func(s *plan.GuardSpec) { s.Inner = inner }, func(s *plan.GuardSpec) { s.Outer = outer }, func(s *plan.GuardSpec) { s.Hosts = []string{hostMAC} },
	} {
		spec := bridge
		change(&spec)
		err := d.firewall.Apply(context.Background(), []plan.Op{plan.SetGuard{Spec: spec}})[0].Err
		if want := `cannot guard bridge of "default": what is for an IPv6-only link doesn't go with a bridge`; err == nil || err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
	apply(t, d.firewall, plan.DeleteGuard{Network: "default"})
	if got := nftRuleset(d.host); strings.Contains(got, "table netdev") {
		t.Errorf("left:\n%s", got)
	}
	if d := cmp.Diff(map[string]string{}, observe(t, d.firewall).Guards); d != "" {
		t.Errorf("deleted (-want +got):\n%s", d)
	}
}
