package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// More networks share the link of an uplink than a set stores interfaces with one prefix.
func TestManyNetworksOnOneLink(t *testing.T) {
	w := newWorld()
	w.m.Plug(wlan6)
	w.m.SetRouters("wlan0", true, routerA)
	const networks = 200
	for i := range networks {
		w.network(fmt.Sprintf("n%03d", i), map[string]any{"ipv4-method": "off", "inbound": "allow"})
	}
	w.mustConverge(t)
	// One more that comes before most others, as one that was created when they ran.
	w.network("n000a", map[string]any{"ipv4-method": "off", "inbound": "allow"})
	w.m.Log()
	w.mustConverge(t)
	for _, line := range w.m.Log() {
		if strings.HasPrefix(line, "delete") {
			t.Errorf("for one more network: %s", line)
		}
	}
	for _, set := range []string{plan.SetLocal6, plan.SetInbound6} {
		entries := w.m.SetEntries(set)
		with, covered := map[string]int{}, map[string]int{}
		for _, e := range entries {
			with[e.Prefix.String()]++
			covered[e.Interface] += 1 << (80 - e.Prefix.Bits())
			if !pfx("2001:db8:a::/64").Overlaps(e.Prefix) {
				t.Errorf("%s has %v", set, e)
			}
		}
		for prefix, n := range with {
			if n > 56 {
				t.Errorf("%s has %s with %d interfaces", set, prefix, n)
			}
		}
		for ifname, n := range covered {
			if n != 1<<16 {
				t.Errorf("%s has a part of the prefix with %s", set, ifname)
			}
		}
		if len(covered) != networks+1 {
			t.Errorf("%s has %d of %d networks", set, len(covered), networks)
		}
	}
	if out := w.m.SetEntries(plan.SetOut6); len(out) != 1 || out[0] != (vnet.SetEntry{Prefix: pfx("2001:db8:a::/64"), Interface: "wlan0"}) {
		t.Errorf("the ways out are %v", out)
	}
}
