package link

import (
	"net/netip"
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
