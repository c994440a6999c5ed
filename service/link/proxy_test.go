package link

import (
	"net/netip"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestProxies(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	index := veth(t, "gwta", "gwtb")
	ip(t, "link", "set", "gwta", "up")
	ip(t, "neighbour", "add", "proxy", "2001:db8::6", "dev", "gwta")
	ip(t, "neighbour", "add", "proxy", "2001:db8::7", "dev", "gwta", "protocol", "16")
	ip(t, "neighbour", "add", "proxy", "10.1.1.1", "dev", "gwta") // of IPv4
	ip(t, "neighbour", "add", "2001:db8::8", "lladdr", "02:00:00:00:00:08", "dev", "gwta")
	entry := func(address string, protocol uint8) vnet.Proxy {
		return vnet.Proxy{Address: netip.MustParseAddr(address), Link: index, Protocol: protocol}
	}
	expect := func(what string, want ...vnet.Proxy) {
		t.Helper()
		if d := cmp.Diff(want, observe(t, k).Proxies, prefixes, cmpopts.EquateEmpty(),
			cmpopts.SortSlices(func(a, b vnet.Proxy) bool { return a.Address.Less(b.Address) })); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	others := []vnet.Proxy{entry("2001:db8::6", 0), entry("2001:db8::7", 16)}
	expect("others'", others...)
	addresses := []netip.Addr{netip.MustParseAddr("2001:db8::5"), netip.MustParseAddr("2001:db8::6"), netip.MustParseAddr("2001:db8::7")}
	for range 2 {
		for _, a := range addresses {
			apply(t, k, plan.AddProxy{Link: "gwta", Address: a})
		}
		expect("with ours", append([]vnet.Proxy{entry("2001:db8::5", plan.Protocol)}, others...)...)
	}
	ip(t, "link", "set", "gwtb", "down")
	eventually(t, "loss of the carrier", func() bool { return !findLink(t, observe(t, k), "gwta").Carrier })
	expect("without a carrier", append([]vnet.Proxy{entry("2001:db8::5", plan.Protocol)}, others...)...)
	for range 2 {
		for _, a := range addresses {
			apply(t, k, plan.DeleteProxy{Link: "gwta", Address: a})
		}
		expect("without ours", others...)
	}
	apply(t, k, plan.AddProxy{Link: "gwta", Address: addresses[0]})
	ip(t, "link", "set", "gwta", "down")
	expect("while the link is down")
	apply(t, k, plan.DeleteProxy{Link: "gwta", Address: addresses[0]}, plan.DeleteProxy{Link: "gwt-absent", Address: addresses[0]})
	refused(t, k, plan.AddProxy{Link: "gwt-absent", Address: addresses[0]}, `cannot answer for 2001:db8::5 on "gwt-absent"`, "no such interface")
}
