package firewall

import (
	"context"
	"strings"
	"testing"

	"gangway/service/plan"
)

func TestSetEntries6(t *testing.T) {
	host := newNamespace(t, "host")
	host.enter()
	f := newFirewall(t, "iptables-nft")
	apply(t, f, remove(plan.SetOut6, "2001:db8::/64,eth0")) // no such set
	apply(t, f, plan.InstallChains{})
	entries := []string{"2001:db8::/64,gway0", "::/1,eth0", "8000::/1,eth0", "fd12:3456:789a:1::/64,wlp0s20f3abcde", "2001:db8::7/128,eth0"}
	for _, set := range plan.Sets6() {
		for _, e := range entries {
			apply(t, f, add(set, e), add(set, e))
		}
		got := map[string]bool{}
		for _, e := range observe(t, f).Sets[set] {
			got[e.Prefix.String()+","+e.Interface] = true
		}
		for _, e := range entries {
			if !got[e] || len(got) != len(entries) {
				t.Errorf("%s: %v, want %q", set, got, entries)
			}
			apply(t, f, remove(set, e), remove(set, e))
		}
		if got := observe(t, f).Sets[set]; len(got) > 0 {
			t.Errorf("%s: left: %v", set, got)
		}
	}
	for _, test := range []struct {
		op   plan.Op
		want string
	}{
		{add(plan.SetOut6, "10.0.0.0/24,eth0"), `cannot add 10.0.0.0/24,eth0 to set "gangway6-out": not an IPv6 prefix of 1 to 128 bits`},
		{add(plan.SetOut6, "::/0,eth0"), "not an IPv6 prefix"},
		{add(plan.SetOut6, "::ffff:10.0.0.0/120,eth0"), "not an IPv6 prefix"},
		{remove(plan.SetOut6, "10.0.0.0/24,eth0"), "not an IPv6 prefix"},
		{add(plan.SetOut, "2001:db8::/64,eth0"), "not an IPv4 prefix"},
	} {
		if err := f.Apply(context.Background(), []plan.Op{test.op})[0].Err; err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want %q in it", test.op, err, test.want)
		}
	}
	apply(t, f, plan.RemoveFirewall{})
	if got := host.run("ipset", "list", "-n"); got != "" {
		t.Errorf("sets left: %s", got)
	}
}
