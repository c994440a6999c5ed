package firewall

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// flows returns the tracked connections of the firewall's namespace as readable text, sorted.
func flows(t *testing.T, f *Firewall) []string {
	t.Helper()
	conntrack, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	must(t, err)
	defer conntrack.Close()
	var out []string
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		list, err := conntrack.ConntrackTableList(netlink.ConntrackTable, family)
		must(t, err)
		for _, c := range list {
			out = append(out, net.IP(c.Forward.SrcIP).String()+" to "+c.Forward.DstIP.String()+" as "+c.Reverse.DstIP.String())
		}
	}
	slices.Sort(out)
	return out
}

func TestFlushFlows(t *testing.T) {
	l := newLaptop(t, "iptables-nft")
	apply(t, l.firewall, add(plan.SetOut, homeNet+",wlan0"), add(plan.SetNAT, homeNet+",wlan0"),
		add(plan.SetOut, labNet+",eth0"), add(plan.SetNAT, labNet+",eth0"))
	asked := []*namespace{l.alice, l.alice, l.bob, l.carol}
	for _, who := range asked {
		check{who, "udp", "", server + ":7", "192.0.2.2"}.run(t)
	}
	l.alice.run("ping", "-c1", "-W10", server)
	check{l.host, "udp", "", "192.0.2.1:9", refused}.run(t)
	check{l.alice, "udp", "", "192.168.231.1:53", "192.168.231.10"}.run(t)
	l.host.sh("ip route replace default via 198.51.100.1")
	check{l.alice, "udp", "", server + ":7", "198.51.100.2"}.run(t)
	check{l.bob, "tcp", "", server + ":7", "198.51.100.2"}.run(t)

	before := flows(t, l.firewall)
	var asks []vnet.Flow
	op := plan.FlushFlows{
		Subnets: []netip.Prefix{netip.MustParsePrefix(homeNet)},
		Stale: func(flow vnet.Flow) bool {
			asks = append(asks, flow)
			return flow.Translated == netip.MustParseAddr("192.0.2.2")
		},
		Why: "a test",
	}
	got := l.firewall.Apply(context.Background(), []plan.Op{op, op})
	if got[0].Err != nil || got[0].Count != 4 {
		t.Errorf("flushed %d flows (%v), want 4 of %q", got[0].Count, got[0].Err, before)
	}
	if got[1].Err != nil || got[1].Count != 0 {
		t.Errorf("flushed %d flows the second time (%v)", got[1].Count, got[1].Err)
	}
	want := slices.DeleteFunc(slices.Clone(before), func(text string) bool {
		return text == "192.168.231.10 to 203.0.113.1 as 192.0.2.2" || text == "192.168.231.11 to 203.0.113.1 as 192.0.2.2"
	})
	if d := cmp.Diff(want, flows(t, l.firewall)); d != "" || len(want) != len(before)-4 {
		t.Errorf("flows left (-want +got):\n%s", d)
	}
	home := netip.MustParsePrefix(homeNet)
	protocols := map[uint8]bool{}
	for _, flow := range asks {
		protocols[flow.Protocol] = true
		if !home.Contains(flow.Source) {
			t.Errorf("asked about a flow of somebody else's: %+v", flow)
		}
	}
	if !protocols[unix.IPPROTO_TCP] || !protocols[unix.IPPROTO_UDP] || !protocols[unix.IPPROTO_ICMP] {
		t.Errorf("asked about flows of the protocols %v only", protocols)
	}
	if slices.Contains(asks, vnet.Flow{Protocol: unix.IPPROTO_UDP, Source: netip.MustParseAddr("192.168.231.10"),
		Destination: netip.MustParseAddr("192.168.231.1"), Translated: netip.MustParseAddr("192.168.231.10")}) == false {
		t.Error("not asked about the flow that isn't translated")
	}
}

// Those of either family are flushed, of that which the prefixes are of.
func TestFlushFlows6(t *testing.T) {
	l := newLaptop6(t, "iptables-nft")
	apply(t, l.firewall, add(plan.SetOut6, home6+",wlan0"), add(plan.SetNAT6, home6+",wlan0"), add(plan.SetNAT6, home6+",eth0"),
		add(plan.SetOut6, lab6+",eth0"), add(plan.SetNAT6, lab6+",eth0"))
	l.host.run("ip", "addr", "del", "2001:db8:1::2/128", "dev", "eth0")
	ask := func(who *namespace, network, want string) {
		t.Helper()
		check{who, network, "", "[" + server6 + "]:7", want}.run(t)
	}
	for _, network := range []string{"tcp", "udp"} {
		ask(l.alice, network, "2001:db8:d::2")
		ask(l.bob, network, "2001:db8:d::2")
		ask(l.carol, network, "2001:db8:d::2")
	}
	if !l.alice.pings(server6) {
		t.Error("no echo")
	}
	check{l.alice, "udp", "", server + ":7", "192.0.2.2"}.run(t)
	l.host.run("ip", "-6", "route", "replace", "default", "via", "2001:db8:c::1")
	ask(l.alice, "udp", "2001:db8:c::2")
	ask(l.bob, "tcp", "2001:db8:c::2")

	before := flows(t, l.firewall)
	stale := func(prefix string) func(vnet.Flow) bool {
		return func(flow vnet.Flow) bool {
			if !netip.MustParsePrefix(prefix).Contains(flow.Source) {
				t.Errorf("asked about a flow of somebody else's: %+v", flow)
			}
			return flow.Translated == netip.MustParseAddr("2001:db8:d::2") || flow.Translated == netip.MustParseAddr("192.0.2.2")
		}
	}
	const ofAlice, ofBob, ofAlice4 = alice6 + " to " + server6 + " as 2001:db8:d::2", bob6 + " to " + server6 + " as 2001:db8:d::2", "192.168.231.10 to 203.0.113.1 as 192.0.2.2"
	for _, step := range []struct {
		op   plan.FlushFlows
		gone []string
	}{
		{plan.FlushFlows{Subnets: []netip.Prefix{netip.MustParsePrefix(homeNet)}, Stale: stale(homeNet)}, []string{ofAlice4}},
		{plan.FlushFlows{Subnets: []netip.Prefix{netip.MustParsePrefix(home6)}, TranslatedOnly: true, Stale: stale(home6)}, []string{ofAlice, ofBob}},
	} {
		count := 0
		for _, text := range before {
			if slices.Contains(step.gone, text) {
				count++
			}
		}
		for round, want := range []int{count, 0} {
			got := l.firewall.Apply(context.Background(), []plan.Op{step.op})[0]
			if got.Err != nil || got.Count != want || count == 0 {
				t.Errorf("%v, round %d: flushed %d (%v), want %d of %q", step.op.Subnets, round, got.Count, got.Err, want, before)
			}
		}
		before = slices.DeleteFunc(before, func(text string) bool { return slices.Contains(step.gone, text) })
		if d := cmp.Diff(before, flows(t, l.firewall)); d != "" {
			t.Errorf("%v: flows left (-want +got):\n%s", step.op.Subnets, d)
		}
	}
	// Both at once.
	check{l.alice, "udp", "", server + ":7", "192.0.2.2"}.run(t)
	both := plan.FlushFlows{Subnets: []netip.Prefix{netip.MustParsePrefix(homeNet), netip.MustParsePrefix(home6)}, Stale: func(f vnet.Flow) bool { return f.Protocol == unix.IPPROTO_UDP }}
	if got := l.firewall.Apply(context.Background(), []plan.Op{both})[0]; got.Err != nil || got.Count != 2 {
		t.Errorf("flushed %d (%v), want one of each family", got.Count, got.Err)
	}
}
