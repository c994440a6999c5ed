package link

import (
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/google/go-cmp/cmp"
)

func TestRules6(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	// Each differs from ours by the protocol, or the family.
	ip(t, "-6", "rule", "add", "priority", "21100", "iif", "gwt1", "lookup", "main", "suppress_prefixlength", "1", "protocol", "3")
	ip(t, "-4", "rule", "add", "priority", "21200", "iif", "gwt1", "lookup", "26450", "protocol", "147")
	foreign := ip(t, "-6", "rule") + ip(t, "-4", "rule")
	rules := []vnet.Rule{
		{IPv6: true, Priority: plan.PriorityMain, IIF: "gwt1", Table: 254, SuppressPrefixLength: 1, Protocol: plan.Protocol},
		{IPv6: true, Priority: plan.PriorityOwn, IIF: "gwt1", Table: plan.TableFollow, SuppressPrefixLength: -1, Protocol: plan.Protocol},
		{IPv6: true, Priority: plan.PriorityOwn, IIF: "gwt2", Table: plan.TablePinned + 12, SuppressPrefixLength: -1, Protocol: plan.Protocol},
	}
	for range 2 {
		for _, r := range rules {
			apply(t, k, plan.AddRule{Rule: r})
		}
		var own []vnet.Rule
		have := observe(t, k)
		for _, r := range have.Rules6 {
			if r.Protocol == plan.Protocol {
				own = append(own, r)
			}
		}
		if d := cmp.Diff(rules, own); d != "" {
			t.Error("observed rules (-want +got):\n", d)
		}
		for _, r := range have.Rules {
			if r.IPv6 {
				t.Errorf("%+v among those of IPv4", r)
			}
		}
	}
	refused(t, k, plan.DeleteRule{Rule: vnet.Rule{IPv6: true, Table: 254, SuppressPrefixLength: -1}}, "isn't ours")
	for range 2 {
		for _, r := range rules {
			apply(t, k, plan.DeleteRule{Rule: r})
		}
		if after := ip(t, "-6", "rule") + ip(t, "-4", "rule"); after != foreign {
			t.Errorf("rules after deletion:\n%swant:\n%s", after, foreign)
		}
	}
}
