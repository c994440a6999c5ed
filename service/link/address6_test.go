package link

import (
	"net/netip"
	"strings"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/google/go-cmp/cmp"
)

func TestAddresses6(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	veth(t, "gwta", "gwtb")
	ip(t, "address", "add", "2001:db8::1/64", "dev", "gwta", "nodad")
	index := veth(t, "gwtp", "gwtq")
	apply(t, k, bridgeOp("gwt0"), plan.SetLinkUp{Name: "gwt0"}, plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index})
	prefix := netip.MustParsePrefix("fd12:3456:789a::1/64")
	bridge := findLink(t, observe(t, k), "gwt0").Index
	unique := func() (list []vnet.Address) {
		for _, a := range observe(t, k).Addresses {
			if a.Link == bridge && !a.Prefix.Addr().IsLinkLocalUnicast() {
				list = append(list, a)
			}
		}
		return list
	}
	want := []vnet.Address{{Link: bridge, Prefix: prefix}}
	for range 2 {
		apply(t, k, plan.AddAddress{Link: "gwt0", Prefix: prefix})
		if d := cmp.Diff(want, unique(), prefixes); d != "" {
			t.Error("added (-want +got):\n", d)
		}
	}
	if text := ip(t, "-6", "address", "show", "dev", "gwt0"); !strings.Contains(text, "scope global nodad") {
		t.Errorf("with duplicate address detection, or not of universe scope:\n%s", text)
	}
	for range 2 {
		apply(t, k, plan.DeleteAddress{Link: "gwt0", Prefix: prefix})
		if left := unique(); len(left) > 0 {
			t.Errorf("left: %+v", left)
		}
	}
	apply(t, k, plan.DeleteAddress{Link: "gwt-absent", Prefix: prefix})
	refused(t, k, plan.AddAddress{Link: "gwta", Prefix: prefix}, `cannot add address fd12:3456:789a::1/64 to "gwta"`, "not a bridge of ours but a veth")
	refused(t, k, plan.DeleteAddress{Link: "gwta", Prefix: netip.MustParsePrefix("2001:db8::1/64")}, "not a bridge of ours")
	if text := ip(t, "-6", "address", "show", "dev", "gwta"); !strings.Contains(text, "2001:db8::1/64") {
		t.Errorf("deleted somebody else's address:\n%s", text)
	}
}
