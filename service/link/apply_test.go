package link

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var prefixes = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func sysctl(t *testing.T, key string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/" + key)
	must(t, err)
	return strings.TrimSpace(string(b))
}

func TestBridge(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := bridgeOp("gwt0")
	op.MTU = 1400
	for range 2 {
		apply(t, k, op)
		l := findLink(t, observe(t, k), "gwt0")
		want := vnet.Link{Name: "gwt0", Kind: "bridge", Type: 1, MAC: op.MAC, MTU: 1400, Alias: "gangway:gwt0", Group: op.Group}
		if d := cmp.Diff(want, l, cmpopts.IgnoreFields(vnet.Link{}, "Index", "RxBytes", "TxBytes")); d != "" {
			t.Error("observed bridge (-want +got):\n", d)
		}
		for key, want := range map[string]string{"accept_ra": "0", "autoconf": "0", "addr_gen_mode": "0"} {
			if got := sysctl(t, "net/ipv6/conf/gwt0/"+key); got != want {
				t.Errorf("%s is %s, not %s", key, got, want)
			}
		}
		details := ip(t, "-d", "link", "show", "gwt0")
		for _, word := range []string{"forward_delay 0 ", "stp_state 0 ", "mcast_snooping 0 ", "state DOWN"} {
			if !strings.Contains(details, word) {
				t.Errorf("no %q in: %s", word, details)
			}
		}
	}
	mac := vnet.BridgeMAC("other", "x").String()
	changes := []plan.Op{plan.SetMTU{Name: "gwt0", MTU: 1300}, plan.SetMAC{Name: "gwt0", MAC: mac},
		plan.SetGroup{Name: "gwt0", Group: plan.GroupBridge}, plan.SetMulticastSnooping{Name: "gwt0", On: true}, plan.SetLinkUp{Name: "gwt0"}}
	for range 2 {
		apply(t, k, changes...)
		l := findLink(t, observe(t, k), "gwt0")
		if l.MTU != 1300 || l.MAC != mac || l.Group != plan.GroupBridge || !l.MulticastSnooping || !l.Up {
			t.Errorf("after the changes: %+v", l)
		}
	}
	apply(t, k, plan.SetMulticastSnooping{Name: "gwt0", On: false}, op)
	if l := findLink(t, observe(t, k), "gwt0"); l.MulticastSnooping || l.MAC != op.MAC || !l.Up {
		t.Errorf("created again over a running one: %+v", l)
	}
	apply(t, k, plan.DeleteBridge{Name: "gwt0", Alias: "gangway:another"})
	findLink(t, observe(t, k), "gwt0")
	for range 2 {
		apply(t, k, plan.DeleteBridge{Name: "gwt0", Alias: op.Alias})
		if _, there := observeLink(t, k, "gwt0"); there {
			t.Error("still there after deletion")
		}
	}
}

func observeLink(t *testing.T, k *Kernel, name string) (vnet.Link, bool) {
	have := observe(t, k)
	return have.LinkByName(name)
}

func TestBridgeKeepsItsMTU(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	for _, mtu := range []int{1280, 1500, 65535} {
		op := bridgeOp("gwt0")
		op.MTU = mtu
		index := veth(t, "gwtp", "gwtq")
		ip(t, "link", "set", "gwtp", "mtu", "1290")
		apply(t, k, op, plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index})
		if l := findLink(t, observe(t, k), "gwt0"); l.MTU != mtu {
			t.Errorf("a port with MTU 1290 made the bridge's %d of %d", l.MTU, mtu)
		}
		apply(t, k, plan.DeleteBridge{Name: "gwt0", Alias: op.Alias})
		ip(t, "link", "del", "gwtp")
	}
}

func TestForeignLinksAreRefused(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	ip(t, "link", "add", "gwt0", "type", "bridge")
	ip(t, "link", "add", "gwt1", "type", "bridge")
	ip(t, "link", "set", "gwt1", "alias", "docker")
	index := veth(t, "gwtp", "gwtq")
	before := ip(t, "-d", "-o", "link")
	refused(t, k, bridgeOp("gwt0"), `cannot create bridge "gwt0"`, "taken", "bridge without an alias")
	refused(t, k, bridgeOp("gwt1"), `"docker"`)
	refused(t, k, bridgeOp("gwtp"), "a veth")
	refused(t, k, plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index}, `cannot add port "gwtp" to "gwt0"`, "not a bridge of ours")
	refused(t, k, plan.BouncePort{Interface: "gwtp"}, "not a port")
	apply(t, k, plan.DeleteBridge{Name: "gwt0", Alias: "gangway:gwt0"}, plan.DeleteBridge{Name: "gwtp", Alias: ""})
	if after := ip(t, "-d", "-o", "link"); after != before {
		t.Errorf("foreign links changed:\n%s\n%s", before, after)
	}
}

// A process that is killed between creating the bridge and naming it ours leaves a bridge
// without an alias: the next one completes it.
func TestHalfMadeBridgeIsCompleted(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := bridgeOp("gwt0")
	apply(t, k, op)
	ip(t, "link", "set", "gwt0", "alias", "")
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/gwt0/accept_ra", []byte("1"), 0))
	apply(t, k, op)
	if l := findLink(t, observe(t, k), "gwt0"); l.Alias != op.Alias || sysctl(t, "net/ipv6/conf/gwt0/accept_ra") != "0" {
		t.Errorf("not completed: %+v", l)
	}
}

func TestAddress(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	p := netip.MustParsePrefix("192.168.231.1/24")
	apply(t, k, bridgeOp("gwt0"))
	ip(t, "address", "add", "10.9.9.9/32", "dev", "gwt0")
	index := findLink(t, observe(t, k), "gwt0").Index
	for range 2 {
		apply(t, k, plan.AddAddress{Link: "gwt0", Prefix: p}, plan.SetLinkUp{Name: "gwt0"})
		have := observe(t, k)
		if !slices.Contains(have.Addresses, vnet.Address{Link: index, Prefix: p}) {
			t.Errorf("%s is not among %v", p, have.Addresses)
		}
		route := vnet.Route{Table: 254, Dst: p.Masked(), Link: index, Source: p.Addr(), Protocol: 2, Scope: 253, Type: 1}
		if !slices.Contains(have.Routes, route) {
			t.Errorf("no prefix route %+v among %+v", route, have.Routes)
		}
		if text := ip(t, "-o", "-4", "address", "show", "gwt0"); !strings.Contains(text, "192.168.231.1/24 brd 192.168.231.255 ") {
			t.Errorf("no broadcast address: %s", text)
		}
	}
	for range 2 {
		apply(t, k, plan.DeleteAddress{Link: "gwt0", Prefix: p}, plan.DeleteAddress{Link: "gwt-absent", Prefix: p})
		if text := ip(t, "-o", "-4", "address", "show", "gwt0"); strings.Contains(text, "192.168.231.1") || !strings.Contains(text, "10.9.9.9") {
			t.Errorf("after deletion: %s", text)
		}
	}
	refused(t, k, plan.AddAddress{Link: "gwt-absent", Prefix: p}, `cannot add address 192.168.231.1/24 to "gwt-absent"`)
}

func TestBroadcast(t *testing.T) {
	for prefix, want := range map[string]string{"10.1.2.3/8": "10.255.255.255", "192.168.1.5/29": "192.168.1.7",
		"192.168.1.1/30": "192.168.1.3", "192.168.1.1/31": "invalid IP", "192.168.1.1/32": "invalid IP", "0.0.0.0/0": "255.255.255.255"} {
		if got, _ := broadcast(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("broadcast of %s is %s, not %s", prefix, got, want)
		}
	}
}

func TestRules(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	ip(t, "rule", "add", "priority", "21100", "iif", "gwt0", "lookup", "main", "suppress_prefixlength", "0", "protocol", "3")
	ip(t, "rule", "add", "priority", "21200", "iif", "gwt0", "fwmark", "7", "lookup", "26450", "protocol", "147")
	foreign := ip(t, "rule")
	rules := []vnet.Rule{
		{Priority: plan.PriorityMain, IIF: "gwt1", Table: 254, Protocol: plan.Protocol},
		{Priority: plan.PriorityOwn, IIF: "gwt1", Table: plan.TableFollow, SuppressPrefixLength: -1, Protocol: plan.Protocol},
		{Priority: plan.PriorityOwn, IIF: "gwt2", Table: plan.TablePinned + 12, SuppressPrefixLength: -1, Protocol: plan.Protocol},
	}
	for range 2 {
		for _, r := range rules {
			apply(t, k, plan.AddRule{Rule: r})
		}
		var own []vnet.Rule
		for _, r := range observe(t, k).Rules {
			if r.Protocol == plan.Protocol && !r.Foreign {
				own = append(own, r)
			}
		}
		if d := cmp.Diff(rules, own); d != "" {
			t.Error("observed rules (-want +got):\n", d)
		}
	}
	marked := slices.IndexFunc(observe(t, k).Rules, func(r vnet.Rule) bool { return r.IIF == "gwt0" && r.Table == 26450 })
	if r := observe(t, k).Rules[marked]; !r.Foreign {
		t.Errorf("a rule with a mark is not foreign: %+v", r)
	} else {
		refused(t, k, plan.DeleteRule{Rule: r}, "selectors")
	}
	refused(t, k, plan.DeleteRule{Rule: vnet.Rule{Table: 254, SuppressPrefixLength: -1}}, "isn't ours")
	for range 2 {
		for _, r := range rules {
			apply(t, k, plan.DeleteRule{Rule: r})
		}
		// the first of the foreign ones has all that ours has, but for the protocol
		apply(t, k, plan.DeleteRule{Rule: vnet.Rule{Priority: 21100, IIF: "gwt0", Table: 254, Protocol: plan.Protocol}})
		if after := ip(t, "rule"); after != foreign {
			t.Errorf("rules after deletion:\n%swant:\n%s", after, foreign)
		}
	}
}

func TestRoutes(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	veth(t, "gwta", "gwtb")
	ip(t, "address", "add", "10.7.0.2/24", "dev", "gwta")
	ip(t, "link", "set", "gwta", "up")
	ip(t, "route", "add", "default", "via", "10.7.0.9", "metric", "5", "table", "26450", "proto", "static")
	index := findLink(t, observe(t, k), "gwta").Index
	anywhere := netip.MustParsePrefix("0.0.0.0/0")
	unreachable := vnet.Route{Table: plan.TableFollow, Dst: anywhere, Metric: 1 << 31, Protocol: plan.Protocol, Type: vnet.RouteUnreachable}
	via := vnet.Route{Table: plan.TableFollow, Dst: anywhere, Gateway: netip.MustParseAddr("10.7.0.1"), Link: index,
		Protocol: plan.Protocol, Type: vnet.RouteUnicast}
	offlink := via
	offlink.Gateway, offlink.OnLink, offlink.Metric, offlink.Source = netip.MustParseAddr("172.31.1.1"), true, 7, netip.MustParseAddr("10.7.0.2")
	direct := vnet.Route{Table: plan.TablePinned + uint32(index), Dst: anywhere, Link: index, Protocol: plan.Protocol, Type: 1, Scope: 253}
	other := via
	other.Gateway = netip.MustParseAddr("10.7.0.3")
	own := func() (list []vnet.Route) {
		for _, r := range observe(t, k).Routes {
			if r.Protocol == plan.Protocol {
				list = append(list, r)
			}
		}
		return list
	}
	for range 2 {
		apply(t, k, plan.ReplaceRoute{Route: unreachable}, plan.ReplaceRoute{Route: via, LinkName: "gwta"},
			plan.ReplaceRoute{Route: offlink}, plan.ReplaceRoute{Route: direct, LinkName: "gwta"})
		byName := via
		byName.Link = 0
		apply(t, k, plan.ReplaceRoute{Route: byName, LinkName: "gwta"})
		want := []vnet.Route{via, offlink, unreachable, direct}
		if d := cmp.Diff(want, own(), prefixes, cmpopts.SortSlices(func(a, b vnet.Route) bool {
			return a.Table < b.Table || a.Table == b.Table && a.Metric < b.Metric
		})); d != "" {
			t.Error("observed routes (-want +got):\n", d)
		}
	}
	apply(t, k, plan.ReplaceRoute{Route: other, LinkName: "gwta"})
	if have := own(); slices.Contains(have, via) || !slices.Contains(have, other) {
		t.Errorf("not replaced: %+v", have)
	}
	apply(t, k, plan.DeleteRoute{Route: via}) // another one by now
	if !slices.Contains(own(), other) {
		t.Error("deleted a route with another gateway")
	}
	for range 2 {
		for _, r := range []vnet.Route{other, offlink, unreachable, direct} {
			apply(t, k, plan.DeleteRoute{Route: r})
		}
	}
	if have := own(); len(have) > 0 {
		t.Errorf("left: %+v", have)
	}
	if text := ip(t, "route", "show", "table", "26450"); !strings.Contains(text, "10.7.0.9") {
		t.Errorf("a foreign route in our table is gone: %s", text)
	}
	refused(t, k, plan.ReplaceRoute{Route: vnet.Route{Table: 9, Dst: anywhere, Gateway: netip.MustParseAddr("203.0.113.1"),
		Link: index, Type: 1, Protocol: plan.Protocol}}, "cannot set route 0.0.0.0/0 via 203.0.113.1", "gateway")
}

func TestObserveOthers(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	veth(t, "gwta", "gwtb")
	ip(t, "address", "add", "10.7.0.2", "peer", "10.8.0.1/32", "dev", "gwta")
	ip(t, "link", "set", "gwta", "up")
	ip(t, "address", "add", "2001:db8::2/64", "dev", "gwtb", "nodad", "preferred_lft", "0")
	ip(t, "route", "add", "10.20.0.0/16", "nexthop", "via", "10.8.0.1", "nexthop", "dev", "gwtb")
	ip(t, "route", "add", "10.21.0.0/16", "via", "inet6", "fe80::1", "dev", "gwta")
	have := observe(t, k, "net/ipv4/tcp_ecn", "net/ipv6/conf/gwta/accept_ra", "net/ipv6/conf/gwt-absent/accept_ra")
	a, b := findLink(t, have, "gwta"), findLink(t, have, "gwtb")
	if !a.Carrier || !a.Up || a.Kind != "veth" || !findLink(t, have, "lo").Loopback {
		t.Errorf("links: %+v", have.Links)
	}
	for _, want := range []vnet.Address{
		{Link: a.Index, Prefix: netip.MustParsePrefix("10.7.0.2/32"), Peer: netip.MustParsePrefix("10.8.0.1/32")},
		{Link: b.Index, Prefix: netip.MustParsePrefix("2001:db8::2/64"), Deprecated: true},
	} {
		if !slices.Contains(have.Addresses, want) {
			t.Errorf("no %+v among %+v", want, have.Addresses)
		}
	}
	base := vnet.Route{Table: 254, Protocol: 3, Type: 1}
	first, second, six := base, base, base
	first.Dst, first.Gateway, first.Link = netip.MustParsePrefix("10.20.0.0/16"), netip.MustParseAddr("10.8.0.1"), a.Index
	second.Dst, second.Link = first.Dst, b.Index
	six.Dst, six.Gateway, six.Link = netip.MustParsePrefix("10.21.0.0/16"), netip.MustParseAddr("fe80::1"), a.Index
	for _, want := range []vnet.Route{first, second, six} {
		if !slices.Contains(have.Routes, want) {
			t.Errorf("no %+v among %+v", want, have.Routes)
		}
	}
	want := map[string]string{"net/ipv4/tcp_ecn": sysctl(t, "net/ipv4/tcp_ecn"), "net/ipv6/conf/gwta/accept_ra": "1"}
	must(t, os.WriteFile("/proc/sys/net/ipv4/conf/gwta/rp_filter", []byte("2"), 0))
	must(t, os.WriteFile("/proc/sys/net/ipv4/conf/gwtb/forwarding", []byte("1"), 0))
	for _, name := range []string{"all", "default", "lo", "gwta", "gwtb"} {
		for _, key := range []string{"forwarding", "rp_filter"} {
			key = "net/ipv4/conf/" + name + "/" + key
			want[key] = sysctl(t, key)
		}
	}
	got := observe(t, k, "net/ipv4/tcp_ecn", "net/ipv6/conf/gwta/accept_ra", "net/ipv6/conf/gwt-absent/accept_ra").Sysctls
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s is %q, not %q", key, got[key], value)
		}
	}
	if _, exists := got["net/ipv6/conf/gwt-absent/accept_ra"]; exists {
		t.Error("a sysctl that doesn't exist was observed")
	}
	if _, err := k.Observe(t.Context(), []string{"net/../kernel/hostname"}); err == nil {
		t.Error("read a sysctl outside net/")
	}
}

func TestApplyWithEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	k := newKernel(t)
	outcomes := k.Apply(ctx, []plan.Op{plan.SetLinkUp{Name: "gwt-absent"}, plan.StopServer{}})
	if len(outcomes) != 2 || !errors.Is(outcomes[0].Err, context.Canceled) {
		t.Errorf("outcomes: %v", outcomes)
	}
}

func TestOthersOperationsAreRefused(t *testing.T) {
	if isolated(t) {
		refused(t, newKernel(t), plan.StopServer{Network: "x"}, "link room")
	}
}
