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
	list, err := conntrack.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	var out []string
	for _, c := range list {
		out = append(out, net.IP(c.Forward.SrcIP).String()+" to "+c.Forward.DstIP.String()+" as "+c.Reverse.DstIP.String())
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
