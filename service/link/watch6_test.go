package link

import (
	"testing"

	"gangway/service/plan"
)

func TestWatchPokesForIPv6(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	uplink6(t, "gwta", "2001:db8:a::2/64")
	veth(t, "gwtc", "gwtd")
	var p pokes
	startWatch(t, k, watchBuffer, p.poke)
	eventually(t, "the first poke", func() bool { return p.count("watching") == 1 })
	route := func(args ...string) func() {
		return func() { ip(t, append([]string{"-6", "route"}, args...)...) }
	}
	for _, c := range []struct {
		name, reason string
		do           func()
	}{
		{"default route", "route", route("add", "default", "via", "fe80::1", "dev", "gwta", "table", "52")},
		{"another one", "route", route("append", "default", "via", "fe80::2", "dev", "gwta", "table", "52")},
		{"in their place", "route", route("replace", "default", "via", "fe80::3", "dev", "gwta", "table", "52")},
		{"the first again", "route", route("replace", "default", "via", "fe80::1", "dev", "gwta", "table", "52")},
		{"default route deleted", "route", route("del", "default", "table", "52")},
		{"and back", "route", route("add", "default", "via", "fe80::1", "dev", "gwta", "table", "52")},
		{"half of everything", "route", route("add", "::/1", "dev", "gwta")},
		{"the other half", "route", route("add", "8000::/1", "dev", "gwta")},
		{"router heard", "route", func() { newWire(t, "gwtap").advertise() }},
		{"route of ours", "route", route("add", "2001:db8:a::5", "dev", "gwta", "proto", "147")},
		{"route of ours deleted", "route", route("del", "2001:db8:a::5", "dev", "gwta")},
		{"rule", "rule", func() { ip(t, "-6", "rule", "add", "priority", "99", "lookup", "main") }},
		{"rule deleted", "rule", func() { ip(t, "-6", "rule", "del", "priority", "99") }},
		{"forwarding on", "sysctl", func() { set(t, "net/ipv6/conf/gwta/forwarding", "1") }},
		{"forwarding off", "sysctl", func() { set(t, "net/ipv6/conf/gwta/forwarding", "0") }},
		{"everybody's forwarding", "sysctl", func() { set(t, "net/ipv6/conf/all/forwarding", "1") }},
		{"proxy_ndp", "sysctl", func() { set(t, "net/ipv6/conf/gwta/proxy_ndp", "1") }},
		{"force_forwarding", "sysctl", func() { set(t, "net/ipv6/conf/gwta/force_forwarding", "1") }},
	} {
		settled(t, &p)
		before := p.count(c.reason)
		c.do()
		eventually(t, "a poke of "+c.reason+" for "+c.name, func() bool { return p.count(c.reason) > before })
	}
	// A link that goes down takes its routes with it, be it that their deletion isn't announced.
	set(t, "net/ipv6/route/skip_notify_on_dev_down", "1")
	add := route("add", "default", "dev", "gwtc", "table", "53")
	ip(t, "link", "set", "gwtc", "up")
	add()
	ip(t, "link", "set", "gwtc", "down")
	ip(t, "link", "set", "gwtc", "up")
	eventually(t, "the carrier", func() bool { return findLink(t, observe(t, k), "gwtc").Carrier })
	settled(t, &p)
	before := p.count("route")
	add()
	eventually(t, "a poke for the route of a link that was down", func() bool { return p.count("route") > before })
}

func TestWatchIsQuietAboutIPv6(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	uplink6(t, "gwta", "2001:db8:a::2/64")
	apply(t, k, bridgeOp("gwt0"), plan.SetLinkUp{Name: "gwt0"})
	var p pokes
	startWatch(t, k, watchBuffer, p.poke)
	eventually(t, "the first poke", func() bool { return p.count("watching") == 1 })
	// The first message about each is news.
	ip(t, "-6", "route", "add", "default", "via", "fe80::1", "dev", "gwta", "metric", "7", "expires", "100")
	ip(t, "-6", "route", "add", "default", "metric", "9", "nexthop", "via", "fe80::1", "dev", "gwta", "nexthop", "via", "fe80::2", "dev", "gwta")
	set(t, "net/ipv6/conf/gwta/proxy_ndp", "1")
	router := newWire(t, "gwtap")
	router.advertise()
	eventually(t, "the router's route", func() bool { return ip(t, "-6", "route", "show", "proto", "ra") != "" })
	settled(t, &p)
	before := p.count("route") + p.count("sysctl")

	ip(t, "-6", "route", "replace", "default", "via", "fe80::1", "dev", "gwta", "metric", "7", "expires", "200")
	ip(t, "-6", "route", "replace", "default", "metric", "9", "nexthop", "via", "fe80::1", "dev", "gwta", "nexthop", "via", "fe80::2", "dev", "gwta")
	for range 3 {
		router.advertise()
	}
	ip(t, "-6", "route", "add", "2001:db8:1::/48", "dev", "gwt0")
	ip(t, "-6", "route", "del", "2001:db8:1::/48", "dev", "gwt0")
	ip(t, "-6", "route", "add", "local", "2001:db8:2::1", "dev", "lo", "table", "local")
	ip(t, "-6", "route", "add", "fe80:1::/32", "dev", "gwta")
	ip(t, "-6", "route", "add", "multicast", "ff05::/16", "dev", "gwta", "table", "local")
	ip(t, "neighbour", "add", "2001:db8:a::9", "lladdr", "02:00:00:00:00:09", "dev", "gwta")
	ip(t, "neighbour", "add", "proxy", "2001:db8:a::10", "dev", "gwta")
	set(t, "net/ipv6/conf/gwta/ignore_routes_with_linkdown", "1")
	set(t, "net/ipv6/conf/gwta/accept_ra", "2")
	settled(t, &p)
	if after := p.count("route") + p.count("sysctl"); after != before {
		t.Errorf("%d pokes for what is irrelevant: %s", after-before, p.all())
	}
}
