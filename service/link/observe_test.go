package link

import (
	"net/netip"
	"os"
	"slices"
	"testing"

	"gangway/service/vnet"
)

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
