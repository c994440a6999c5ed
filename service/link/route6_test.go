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

var anywhere6 = netip.MustParsePrefix("::/0")

// uplink6 makes an interface with an IPv6 address that is usable at once, and returns its index.
func uplink6(t *testing.T, name, address string) int {
	t.Helper()
	index := veth(t, name, name+"p")
	ip(t, "address", "add", address, "dev", name, "nodad")
	ip(t, "link", "set", name, "up")
	return index
}

func own6(t *testing.T, k *Kernel) (list []vnet.Route) {
	t.Helper()
	for _, r := range observe(t, k).Routes6 {
		if r.Protocol == plan.Protocol {
			list = append(list, r)
		}
	}
	return list
}

func sameRoutes(t *testing.T, what string, want, have []vnet.Route) {
	t.Helper()
	if d := cmp.Diff(want, have, prefixes, cmpopts.EquateEmpty(), cmpopts.SortSlices(func(a, b vnet.Route) bool {
		if a.Table != b.Table {
			return a.Table < b.Table
		}
		if a.Metric != b.Metric {
			return a.Metric < b.Metric
		}
		return a.Dst.String() < b.Dst.String()
	})); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestRoutes6(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	index := uplink6(t, "gwta", "2001:db8:a::2/64")
	apply(t, k, bridgeOp("gwt0"), plan.SetLinkUp{Name: "gwt0"})
	bridge := findLink(t, observe(t, k), "gwt0").Index
	ip(t, "-6", "route", "add", "default", "via", "2001:db8:a::9", "metric", "5", "table", "26450", "proto", "static")

	base := vnet.Route{Table: plan.TableFollow, Dst: anywhere6, Metric: 100, Link: index, Protocol: plan.Protocol, Type: vnet.RouteUnicast}
	via, offlink, direct, guest, prefix := base, base, base, base, base
	via.Gateway = netip.MustParseAddr("fe80::1")
	offlink.Gateway, offlink.OnLink, offlink.Metric, offlink.Source = netip.MustParseAddr("2001:db8:b::1"), true, 7, netip.MustParseAddr("2001:db8:a::2")
	direct.Table = plan.TablePinned + uint32(index)
	guest.Table, guest.Dst, guest.Link = 254, netip.MustParsePrefix("2001:db8:a::5/128"), bridge
	prefix.Table, prefix.Dst, prefix.Link = 254, netip.MustParsePrefix("fd12:3456:789a::/64"), bridge
	unreachable := vnet.Route{Table: plan.TableFollow, Dst: anywhere6, Metric: 1 << 31, Protocol: plan.Protocol, Type: vnet.RouteUnreachable}
	all := []vnet.Route{via, offlink, direct, guest, prefix, unreachable}
	for range 2 {
		for _, r := range all {
			apply(t, k, plan.ReplaceRoute{Route: r})
		}
		byName := guest
		byName.Link = 0
		apply(t, k, plan.ReplaceRoute{Route: byName, LinkName: "gwt0"})
		sameRoutes(t, "observed", all, own6(t, k))
	}

	// Each takes the place of the one before: by another gateway, without one, by another link, of another kind.
	other, onlink, elsewhere, nowhere := via, via, via, unreachable
	other.Gateway = netip.MustParseAddr("fe80::2")
	onlink.Gateway = netip.Addr{}
	elsewhere.Gateway, elsewhere.Link = netip.Addr{}, bridge
	nowhere.Metric = via.Metric
	for _, r := range []vnet.Route{other, onlink, elsewhere, nowhere, via, elsewhere, other} {
		apply(t, k, plan.ReplaceRoute{Route: r})
		sameRoutes(t, "after the replacement", append([]vnet.Route{r}, all[1:]...), own6(t, k))
	}
	for range 2 {
		for _, r := range append([]vnet.Route{other}, all[1:]...) {
			apply(t, k, plan.DeleteRoute{Route: r})
		}
		sameRoutes(t, "left", nil, own6(t, k))
	}
	if text := ip(t, "-6", "route", "show", "table", "26450"); !strings.Contains(text, "2001:db8:a::9") {
		t.Errorf("a foreign route in our table is gone: %s", text)
	}
	refused(t, k, plan.ReplaceRoute{Route: vnet.Route{Table: 9, Dst: anywhere6, Gateway: netip.MustParseAddr("2001:db8:99::1"),
		Link: index, Type: 1, Protocol: plan.Protocol}}, "cannot set route ::/0 via 2001:db8:99::1", "no route to host")
}

// Nothing is deleted but the route that was asked for, however little the kernel compares.
func TestDeleteRoute6IsExact(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	index, other := uplink6(t, "gwta", "2001:db8:a::2/64"), uplink6(t, "gwtb", "2001:db8:b::2/64")
	guest := netip.MustParsePrefix("2001:db8:a::5/128")
	base := vnet.Route{Table: plan.TableFollow, Dst: anywhere6, Metric: 100, Link: index, Protocol: plan.Protocol, Type: vnet.RouteUnicast}
	with := func(change func(*vnet.Route)) vnet.Route { r := base; change(&r); return r }
	via := with(func(r *vnet.Route) { r.Gateway = netip.MustParseAddr("fe80::1") })
	unreachable := with(func(r *vnet.Route) { r.Type, r.Link = vnet.RouteUnreachable, 0 })
	host := with(func(r *vnet.Route) { r.Dst = guest })
	for _, c := range []struct {
		name      string
		is, asked vnet.Route
	}{
		{"another gateway", via, with(func(r *vnet.Route) { r.Gateway = netip.MustParseAddr("fe80::2") })},
		{"a gateway, where none was asked for", via, base},
		{"no gateway, where one was asked for", base, via},
		{"another metric", via, with(func(r *vnet.Route) { r.Gateway, r.Metric = via.Gateway, 101 })},
		{"the default metric", via, with(func(r *vnet.Route) { r.Gateway, r.Metric = via.Gateway, 0 })},
		{"another table", via, with(func(r *vnet.Route) { r.Gateway, r.Table = via.Gateway, plan.TableBlock })},
		{"another link", host, with(func(r *vnet.Route) { r.Dst, r.Link = guest, other })},
		{"a link that is gone", host, with(func(r *vnet.Route) { r.Dst, r.Link = guest, 9999 })},
		{"unicast", base, unreachable},
		{"unreachable", unreachable, base},
		{"an unreachable host", with(func(r *vnet.Route) { r.Dst, r.Type, r.Link = guest, vnet.RouteUnreachable, 0 }), host},
	} {
		apply(t, k, plan.ReplaceRoute{Route: c.is}, plan.DeleteRoute{Route: c.asked})
		sameRoutes(t, c.name, []vnet.Route{c.is}, own6(t, k))
		apply(t, k, plan.DeleteRoute{Route: c.is})
		sameRoutes(t, c.name+": left", nil, own6(t, k))
	}
	// One with a gateway, and others without that differ in something else: they don't stand for it.
	beside := []vnet.Route{via, with(func(r *vnet.Route) { r.Metric = 101 }), with(func(r *vnet.Route) { r.Dst = netip.MustParsePrefix("::/1") }),
		with(func(r *vnet.Route) { r.Gateway, r.Metric = via.Gateway, 102 })}
	for _, r := range beside {
		apply(t, k, plan.ReplaceRoute{Route: r})
	}
	ip(t, "-6", "route", "append", "default", "dev", "gwtb", "metric", "102", "proto", "147", "table", "26450")
	beside = own6(t, k)
	if len(beside) != 5 {
		t.Errorf("%d routes beside: %v", len(beside), beside)
	}
	apply(t, k, plan.DeleteRoute{Route: base}, plan.DeleteRoute{Route: with(func(r *vnet.Route) { r.Metric = 102 })},
		plan.DeleteRoute{Route: with(func(r *vnet.Route) { r.Table = 4711 })}) // a table that there never was
	sameRoutes(t, "beside", beside, own6(t, k))
	for _, r := range beside {
		apply(t, k, plan.DeleteRoute{Route: r})
	}

	ip(t, "-6", "route", "add", guest.String(), "dev", "gwta", "metric", "100", "proto", "static")
	apply(t, k, plan.DeleteRoute{Route: with(func(r *vnet.Route) { r.Table, r.Dst = 254, guest })})
	foreign := with(func(r *vnet.Route) { r.Table, r.Dst, r.Protocol = 254, guest, 4 })
	if !slices.Contains(observe(t, k).Routes6, foreign) {
		t.Error("deleted somebody else's route")
	}
	refused(t, k, plan.DeleteRoute{Route: with(func(r *vnet.Route) { r.Protocol = 0 })}, "isn't ours")

	// A metric that isn't given is the kernel's default.
	bare := with(func(r *vnet.Route) { r.Dst, r.Metric = guest, 0 })
	apply(t, k, plan.ReplaceRoute{Route: host}, plan.ReplaceRoute{Route: bare}, plan.DeleteRoute{Route: bare})
	sameRoutes(t, "without a metric", []vnet.Route{host}, own6(t, k))
}

// What Observe shows of others' routes, and what not.
func TestObserveRoutes6(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	a, b := uplink6(t, "gwta", "2001:db8:a::2/64"), uplink6(t, "gwtb", "2001:db8:b::2/64")
	for _, r := range []string{
		"2001:db8:1::/48 nexthop via 2001:db8:a::1 nexthop via 2001:db8:b::1",
		"unreachable 2001:db8:2::/48",
		"prohibit 2001:db8:3::/48", "default from 2001:db8:4::/48 via fe80::1 dev gwta", // not shown
		"2001:db8:5::/48 dev gwta table 9", "fe80:1::/48 dev gwta", "multicast ff05::/16 dev gwta", "ff08::/16 dev gwta",
		"2001:db8:6::/48 dev gwta table 9 proto 147", "prohibit 2001:db8:7::/48 proto 147",
	} {
		ip(t, append([]string{"-6", "route", "add"}, strings.Fields(r)...)...)
	}
	route := func(dst, gateway string, link int, protocol uint8, metric uint32) vnet.Route {
		r := vnet.Route{Table: 254, Dst: netip.MustParsePrefix(dst), Link: link, Protocol: protocol, Metric: metric, Type: 1}
		if gateway != "" {
			r.Gateway = netip.MustParseAddr(gateway)
		}
		return r
	}
	nowhere, ours, prohibit := route("2001:db8:2::/48", "", 0, 3, 1024), route("2001:db8:6::/48", "", a, plan.Protocol, 1024), route("2001:db8:7::/48", "", 0, plan.Protocol, 1024)
	nowhere.Type, ours.Table, prohibit.Type = vnet.RouteUnreachable, 9, 8
	sameRoutes(t, "IPv6 routes", []vnet.Route{
		route("2001:db8:a::/64", "", a, 2, 256), route("2001:db8:b::/64", "", b, 2, 256),
		route("2001:db8:1::/48", "2001:db8:a::1", a, 3, 1024), route("2001:db8:1::/48", "2001:db8:b::1", b, 3, 1024),
		nowhere, ours, prohibit,
	}, observe(t, k).Routes6)
}
