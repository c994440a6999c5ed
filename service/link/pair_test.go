package link

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// pairOp makes the pair gw6NETWORKn, gw6NETWORKu.
func pairOp(network string) plan.CreatePair {
	return plan.CreatePair{Network: network, Inner: plan.PairPrefix + network + "n", Outer: plan.PairPrefix + network + "u",
		InnerAlias: plan.InnerAliasPrefix + network, OuterAlias: plan.OuterAliasPrefix + network,
		InnerMAC: "fe:67:77:00:00:01", OuterMAC: "fe:67:77:00:00:02", MTU: 1400}
}

func deletePairOp(o plan.CreatePair) plan.DeletePair {
	return plan.DeletePair{Inner: o.Inner, Alias: o.InnerAlias}
}

// wantPair expects both ends as the operation says, down and without a bridge.
func wantPair(t *testing.T, k *Kernel, o plan.CreatePair) {
	t.Helper()
	have := observe(t, k)
	for _, want := range []vnet.Link{{Name: o.Inner, MAC: o.InnerMAC, Alias: o.InnerAlias}, {Name: o.Outer, MAC: o.OuterMAC, Alias: o.OuterAlias}} {
		want.Kind, want.Type, want.MTU, want.Group = "veth", 1, o.MTU, plan.GroupPair
		l := findLink(t, have, want.Name)
		if d := cmp.Diff(want, l, cmpopts.IgnoreFields(vnet.Link{}, "Index", "RxBytes", "TxBytes")); d != "" {
			t.Errorf("%s (-want +got):\n%s", want.Name, d)
		}
		for _, s := range endIPv6 {
			if got := sysctl(t, "net/ipv6/conf/"+want.Name+"/"+s.key); got != s.value {
				t.Errorf("%s of %s is %s, not %s", s.key, want.Name, got, s.value)
			}
		}
	}
	if text := ip(t, "-o", "link", "show", o.Inner); !strings.Contains(text, o.Inner+"@"+o.Outer+":") {
		t.Errorf("not each other's ends: %s", text)
	}
}

func TestPairIsMadeAndDeleted(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	for range 2 {
		apply(t, k, op)
		wantPair(t, k, op)
	}
	index := findLink(t, observe(t, k), op.Outer).Index
	ip(t, "link", "set", op.Outer, "mtu", "1300", "group", "7", "address", "02:00:00:00:00:01")
	ip(t, "link", "set", op.Inner, "mtu", "1300")
	set(t, "net/ipv6/conf/"+op.Inner+"/disable_ipv6", "0")
	apply(t, k, op)
	wantPair(t, k, op)
	if l := findLink(t, observe(t, k), op.Outer); l.Index != index {
		t.Error("made anew for want of an MTU")
	}
	refused(t, k, plan.DeletePair{Inner: op.Inner, Alias: plan.InnerAliasPrefix + "y"}, `"gw6xn"`, `alias "gangway6:x"`)
	refused(t, k, plan.DeletePair{Inner: op.Inner}, `"gw6xn"`)
	for range 2 {
		apply(t, k, deletePairOp(op))
		for _, name := range []string{op.Inner, op.Outer} {
			if _, there := observeLink(t, k, name); there {
				t.Errorf("%s is there after deletion", name)
			}
		}
	}
}

// What is in use is not disturbed when it is asked for again.
func TestPairInUseIsLeftAlone(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	ip(t, "link", "add", "gwtu", "mtu", "1400", "up", "type", "bridge")
	apply(t, k, op, plan.SetLinkUp{Name: op.Inner}, plan.JoinBridge{Link: op.Outer, Bridge: "gwtu", Isolated: true}, plan.SetLinkUp{Name: op.Outer})
	before := observe(t, k)
	apply(t, k, op)
	after := observe(t, k)
	if d := cmp.Diff(before.Links, after.Links, cmpopts.IgnoreFields(vnet.Link{}, "RxBytes", "TxBytes", "Carrier")); d != "" {
		t.Error(d)
	}
}

func TestHalfMadePair(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	elsewhere := newGuest(t)
	for _, c := range []struct {
		name  string
		spoil func()
	}{
		{"no alias", func() {
			ip(t, "link", "set", op.Inner, "alias", "")
			ip(t, "link", "set", op.Outer, "alias", "")
			set(t, "net/ipv6/conf/"+op.Inner+"/disable_ipv6", "0")
		}},
		{"the inner end has none", func() { ip(t, "link", "set", op.Inner, "alias", "") }},
		{"the outer end has none", func() { ip(t, "link", "set", op.Outer, "alias", "") }},
		{"the outer end is in another namespace", func() { ip(t, "link", "set", op.Outer, "netns", strconv.Itoa(elsewhere.pid)) }},
		{"the inner end is in another namespace", func() { ip(t, "link", "set", op.Inner, "netns", strconv.Itoa(elsewhere.pid)) }},
		{"the outer end has another name", func() { ip(t, "link", "set", op.Outer, "name", "gwtz") }},
		{"halves of two", func() {
			ip(t, "link", "del", op.Inner)
			veth(t, op.Inner, "gwty")
			veth(t, op.Outer, "gwtz")
			ip(t, "link", "set", op.Inner, "alias", op.InnerAlias)
			ip(t, "link", "set", op.Outer, "group", strconv.Itoa(plan.GroupPair))
		}},
	} {
		apply(t, k, op)
		c.spoil()
		apply(t, k, op)
		t.Log(c.name)
		wantPair(t, k, op)
		if text := ip(t, "-o", "link"); strings.Contains(text, "gwtz") || strings.Count(text, "\n") != 3 { // with lo
			t.Errorf("%s: left over:\n%s", c.name, text)
		}
	}
	ip(t, "link", "set", op.Outer, "alias", "")
	apply(t, k, plan.DeletePair{Inner: op.Outer}) // half made, and by either end
	if _, there := observeLink(t, k, op.Inner); there {
		t.Error("half made, and there after deletion")
	}
}

func TestForeignPairsAreRefused(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	for _, setUp := range []func(){
		func() { veth(t, op.Inner, "gwtz") },
		func() { veth(t, "gwtz", op.Outer) },
		func() { ip(t, "link", "add", op.Inner, "group", strconv.Itoa(plan.GroupPair), "type", "bridge") },
		func() {
			ip(t, "link", "add", op.Outer, "type", "bridge")
			ip(t, "link", "set", op.Outer, "alias", op.OuterAlias)
		},
		func() {
			other := pairOp("y")
			other.Inner = op.Inner
			apply(t, k, other)
		},
	} {
		setUp()
		taken := op.Inner
		if _, there := observeLink(t, k, taken); !there {
			taken = op.Outer
		}
		before := ip(t, "-d", "-o", "link")
		refused(t, k, op, `cannot create IPv6-only link "gw6xn" to "gw6xu"`, strconv.Quote(taken), "not ours")
		refused(t, k, plan.DeletePair{Inner: taken, Alias: op.InnerAlias}, "cannot delete IPv6-only link", strconv.Quote(taken))
		if after := ip(t, "-d", "-o", "link"); after != before {
			t.Errorf("foreign links changed:\n%s\n%s", before, after)
		}
		ip(t, "link", "del", taken)
	}
}

// The kernel switches IPv6 on for all links when "all" is written, as VPN clients do.
func TestPairStaysWithoutIPv6(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	apply(t, k, op, plan.SetLinkUp{Name: op.Inner}, plan.SetLinkUp{Name: op.Outer})
	veth(t, "gwta", "gwtb")
	ip(t, "link", "set", "gwta", "up")
	for range 2 {
		eventually(t, "other links' addresses", func() bool {
			return strings.Count(ip(t, "-6", "-o", "address", "show", "scope", "link"), "inet6") == 2
		})
		if text := ip(t, "-6", "address"); strings.Contains(text, plan.PairPrefix) {
			t.Errorf("an end has IPv6:\n%s", text)
		}
		set(t, "net/ipv6/conf/all/disable_ipv6", "1")
		set(t, "net/ipv6/conf/all/disable_ipv6", "0")
	}
}

const victimMark = "GANGWAY_LINK_TEST_VICTIM"

// A process that is killed at any moment of a pair's life leaves what the next one can take up.
func TestPairSurvivesKills(t *testing.T) {
	op := pairOp("x")
	life := []plan.Op{op, plan.JoinBridge{Link: op.Inner, Bridge: "gwt0"}, plan.SetLinkUp{Name: op.Inner},
		plan.JoinBridge{Link: op.Outer, Bridge: "gwtu", Isolated: true}, plan.SetLinkUp{Name: op.Outer}}
	end := []plan.Op{plan.LeaveBridge{Link: op.Outer}, deletePairOp(op)}
	if os.Getenv(victimMark) != "" {
		k := newKernel(t)
		os.Stdout.WriteString("ready\n")
		apply(t, k, life...)
		apply(t, k, end...)
		select {}
	}
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	apply(t, k, bridgeOp("gwt0"), plan.SetLinkUp{Name: "gwt0"})
	ip(t, "link", "add", "gwtu", "up", "type", "bridge")
	states := map[string]int{}
	for i := range 40 {
		victim := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
		victim.Env = append(os.Environ(), victimMark+"=1")
		victim.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := victim.StdoutPipe()
		must(t, err)
		must(t, victim.Start())
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatal(line, err)
		}
		time.Sleep(time.Duration(i*i) * 3 * time.Microsecond)
		must(t, victim.Process.Kill())
		_ = victim.Wait()
		inner, one := observeLink(t, k, op.Inner)
		outer, _ := observeLink(t, k, op.Outer)
		state := "none"
		if one {
			state = strings.Join([]string{inner.Alias, strconv.FormatBool(inner.Up), outer.Alias, strconv.FormatBool(outer.Master != 0)}, " ")
		}
		states[state]++
		if one && inner.Alias != "" && outer.Alias == "" {
			t.Errorf("the inner end has its alias before the outer: %s", state)
		}
		apply(t, k, life...)
		have := observe(t, k)
		inner, outer = findLink(t, have, op.Inner), findLink(t, have, op.Outer)
		if !inner.Up || !outer.Up || !outer.Isolated || inner.Isolated || outer.Alias != op.OuterAlias || inner.Alias != op.InnerAlias ||
			inner.Master != findLink(t, have, "gwt0").Index || outer.Master != findLink(t, have, "gwtu").Index {
			t.Fatalf("after %s: inner %+v, outer %+v", state, inner, outer)
		}
		apply(t, k, end...)
		wantGone(t, k, op)
	}
	t.Log(states)
}

func wantGone(t *testing.T, k *Kernel, op plan.CreatePair) {
	t.Helper()
	if text := ip(t, "-o", "link"); strings.Contains(text, plan.PairPrefix) {
		t.Fatalf("left over:\n%s", text)
	}
}
