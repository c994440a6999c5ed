package plan_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"gangway/service/plan"
	"gangway/service/servicetest"
	"gangway/service/vnet"
)

// world is a machine and what is wanted of it: passes without the service around them.
type world struct {
	m    *servicetest.Machine
	want plan.Want
}

func newWorld() *world {
	return &world{m: servicetest.New(), want: plan.Want{Seed: "test"}}
}

// network adds or changes a network.
func (w *world) network(name string, values map[string]any) {
	n := w.find(name)
	if n == nil {
		settings := vnet.DefaultSettings(name)
		settings.Bridge = fmt.Sprintf("gway%d", len(w.want.Networks))
		w.want.Networks = append(w.want.Networks, plan.WantedNetwork{Name: name, Settings: settings, Active: true})
		slices.SortFunc(w.want.Networks, func(a, b plan.WantedNetwork) int { return strings.Compare(a.Name, b.Name) })
		n = w.find(name)
	}
	settings, err := n.Settings.Merge(values)
	if err != nil {
		return // a combination that no network can have changes nothing
	}
	n.Settings = settings
}

func (w *world) find(name string) *plan.WantedNetwork {
	for i := range w.want.Networks {
		if w.want.Networks[i].Name == name {
			return &w.want.Networks[i]
		}
	}
	return nil
}

func (w *world) forget(name string) {
	w.want.Networks = slices.DeleteFunc(w.want.Networks, func(n plan.WantedNetwork) bool { return n.Name == name })
}

// pass observes, plans and applies once.
func (w *world) pass(first bool) (plan.Result, error) {
	have := w.m.Observed(w.want)
	have.First = first
	result := plan.Plan(w.want, have)
	var failure error
	for i, outcome := range w.m.ApplyOps(result.Ops) {
		if outcome.Err != nil {
			failure = outcome.Err
			continue
		}
		switch o := result.Ops[i].(type) {
		case plan.RememberSubnet:
			w.find(o.Network).Remembered = o.Subnet
		case plan.RememberPrefix:
			w.find(o.Network).Remembered6 = o.Prefix
		case plan.RememberUplinkPrefix:
			w.want.UplinkPrefixes = append(slices.Clone(w.want.UplinkPrefixes), o.Prefix)
		}
	}
	return result, failure
}

// maxRounds is the service's.
const maxRounds = 4

// converge passes until a plan is empty. The results but the last, empty one are returned.
func (w *world) converge(first bool) ([]plan.Result, error) {
	var results []plan.Result
	if first {
		w.m.Revive() // a new process
	}
	for range maxRounds {
		r, err := w.pass(first)
		if err != nil {
			return append(results, r), err
		}
		if len(r.Ops) == 0 {
			if len(results) == 0 {
				results = append(results, r)
			}
			return results, nil
		}
		results = append(results, r)
		first = false
	}
	r := plan.Plan(w.want, w.m.Observed(w.want))
	if len(r.Ops) > 0 {
		return results, fmt.Errorf("not at rest after %d rounds: %v", maxRounds, texts(r.Ops))
	}
	return results, nil
}

func (w *world) mustConverge(t *testing.T) plan.Result {
	t.Helper()
	results, err := w.converge(false)
	if err != nil {
		t.Fatal(err)
	}
	return results[len(results)-1]
}

func texts(ops []plan.Op) []string {
	var list []string
	for _, op := range ops {
		list = append(list, op.String())
	}
	return list
}

// decisionText is what a golden shows of a decision.
func decisionText(d plan.Decision) string {
	text := fmt.Sprintf("%s: %s", d.Name, d.State)
	if d.Reason != "" {
		text += " (" + d.Reason + ")"
	}
	if !d.Active {
		return text
	}
	text += fmt.Sprintf("\n  IPv4 %s", d.IPv4State)
	if d.Address.IsValid() {
		text += " " + d.Address.String()
	}
	if d.Uplink != "" {
		text += " by " + d.Uplink
	}
	if d.IPv4Reason != "" {
		text += ": " + d.IPv4Reason
	}
	text += fmt.Sprintf("\n  IPv6 %s: %s", d.IPv6State, d.IPv6Reason)
	if d.Renumbered != nil {
		text += fmt.Sprintf("\n  renumbered %s to %s", d.Renumbered.Old, d.Renumbered.New)
	}
	return text
}

// The uplinks that most tests use.
var (
	eth0 = servicetest.Dock{Name: "eth0", Kind: vnet.Ethernet, Address: pfx("10.1.0.5/24"), Gateway: ip("10.1.0.1"),
		Default: true, Metric: 100, DNS: []netip.Addr{ip("10.1.0.1")}}
	wlan0 = servicetest.Dock{Name: "wlan0", Kind: vnet.WiFi, Address: pfx("10.2.0.7/24"), Gateway: ip("10.2.0.1"),
		Default: true, Metric: 600, DNS: []netip.Addr{ip("10.2.0.53"), ip("9.9.9.9")}}
	tun0 = servicetest.Dock{Name: "tun0", Kind: vnet.VPN, Address: pfx("10.3.0.2/32"), Default: true, Metric: 50,
		DNS: []netip.Addr{ip("10.3.0.1")}, MTU: 1420}
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }
