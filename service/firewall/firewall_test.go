package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// backends are the programs that everything is tested with.
var backends = []string{"iptables-nft", "iptables-legacy"}

// forBackends runs a test once with each backend, in a network namespace of its own.
func forBackends(t *testing.T, test func(t *testing.T, host *namespace, f *Firewall)) {
	for _, program := range backends {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			host := newNamespace(t, "host")
			host.enter()
			test(t, host, newFirewall(t, program))
		})
	}
}

// newFirewall makes a Firewall of the network namespace that the test is in.
func newFirewall(t testing.TB, program string) *Firewall {
	t.Helper()
	f, err := New(Options{Program: program})
	must(t, err)
	t.Cleanup(f.Close)
	return f
}

func apply(t testing.TB, f *Firewall, ops ...plan.Op) {
	t.Helper()
	for i, o := range f.Apply(context.Background(), ops) {
		if o.Err != nil {
			t.Fatalf("%s: %v", ops[i], o.Err)
		}
	}
}

func observe(t testing.TB, f *Firewall) vnet.Firewall {
	t.Helper()
	o, err := f.Observe(context.Background())
	must(t, err)
	return o
}

// entry makes a set entry of "10.0.0.0/24,gway0".
func entry(text string) vnet.SetEntry {
	prefix, ifname, _ := strings.Cut(text, ",")
	return vnet.SetEntry{Prefix: netip.MustParsePrefix(prefix), Interface: ifname}
}

func add(set, text string) plan.Op    { return plan.AddSetEntry{Set: set, Entry: entry(text)} }
func remove(set, text string) plan.Op { return plan.DeleteSetEntry{Set: set, Entry: entry(text)} }

// saved returns the rules of both families as text, without comments and packet counts.
func saved(host *namespace, f *Firewall) string {
	host.t.Helper()
	var lines []string
	for line := range strings.Lines(host.run(f.ipv4.save) + host.run(f.ipv6.save)) {
		if line[0] == '#' {
			continue
		}
		if line[0] == ':' {
			line, _, _ = strings.Cut(line, " [")
			line += "\n"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

// What is ours goes in and out; what was there stays as it was, byte for byte.
func TestForeignRulesStay(t *testing.T) {
	forBackends(t, func(t *testing.T, host *namespace, f *Firewall) {
		host.sh(`%s <<-EOF
		*mangle
		-A FORWARD -i eth9 -j MARK --set-mark 7
		COMMIT
		*nat
		:OTHERS -
		-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
		-A OTHERS -j RETURN
		COMMIT
		*filter
		:FORWARD DROP
		:GANGWAY -
		:GANGWAY-INPUT2 -
		-A INPUT -p tcp --dport 22 -m comment --comment "GANGWAY-INPUT's neighbour" -j ACCEPT
		-A INPUT -j GANGWAY-INPUT2
		-A FORWARD -j GANGWAY
		-A GANGWAY -j RETURN
		COMMIT
		EOF
		%s <<-EOF
		*mangle
		-A FORWARD -i eth9 -j MARK --set-mark 7
		COMMIT
		*nat
		-A POSTROUTING -s fd00::/64 -j MASQUERADE
		COMMIT
		*filter
		:FORWARD DROP
		:GANGWAY -
		-A INPUT -p tcp --dport 22 -j ACCEPT
		-A FORWARD -j GANGWAY
		COMMIT
		EOF
		ipset create others hash:net,iface
		ipset add others 192.0.2.0/24,eth9
		ipset create gangway6-others hash:net,iface family inet6`, f.ipv4.restore, f.ipv6.restore)
		before, setsBefore := saved(host, f), host.run("ipset", "save")

		if got, want := observe(t, f), (vnet.Firewall{Problem: "chain GANGWAY-FORWARD of table mangle is missing",
			Sets: map[string][]vnet.SetEntry{}, Guards: map[string]string{}}); !cmp.Equal(got, want) {
			t.Errorf("before: %s", cmp.Diff(want, got))
		}
		apply(t, f, plan.InstallChains{}, add(plan.SetLocal, "192.168.231.0/24,gway0"))
		want := vnet.Firewall{Chains: true, Present: true, Guards: map[string]string{}, Sets: map[string][]vnet.SetEntry{
			plan.SetLocal: {entry("192.168.231.0/24,gway0")}, plan.SetOut: {}, plan.SetNAT: {}, plan.SetInbound: {},
			plan.SetLocal6: {}, plan.SetOut6: {}, plan.SetNAT6: {}, plan.SetInbound6: {}, plan.SetBorrowed6: {}}}
		if d := cmp.Diff(want, observe(t, f), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Errorf("after installation (-want +got):\n%s", d)
		}
		installed := saved(host, f)
		for _, line := range strings.Split(strings.TrimSpace(before), "\n") {
			if !strings.Contains(installed, line+"\n") {
				t.Errorf("installation has removed %q", line)
			}
		}

		apply(t, f, plan.RemoveFirewall{}, plan.RemoveFirewall{})
		if d := cmp.Diff(before, saved(host, f)); d != "" {
			t.Errorf("foreign rules have changed (-before +after):\n%s", d)
		}
		if d := cmp.Diff(setsBefore, host.run("ipset", "save")); d != "" {
			t.Errorf("foreign sets have changed (-before +after):\n%s", d)
		}
		if got := observe(t, f); got.Present || got.Chains {
			t.Errorf("after removal: %+v", got)
		}
	})
}

func TestInstallTwiceChangesNothing(t *testing.T) {
	forBackends(t, func(t *testing.T, host *namespace, f *Firewall) {
		apply(t, f, plan.InstallChains{})
		before := saved(host, f)
		generation, err := f.generation()
		must(t, err)
		apply(t, f, plan.InstallChains{})
		apply(t, newFirewall(t, f.ipv4.name), plan.InstallChains{})
		if d := cmp.Diff(before, saved(host, f)); d != "" {
			t.Errorf("second installation (-before +after):\n%s", d)
		}
		again, err := f.generation()
		must(t, err)
		if again != generation {
			t.Errorf("the second installation has changed the ruleset: generation %d, was %d", again, generation)
		}
		if !observe(t, newFirewall(t, f.ipv4.name)).Chains {
			t.Error("a new process doesn't recognise the chains")
		}
	})
}

// What others break is noticed and mended, and only that.
func TestMend(t *testing.T) {
	for _, damage := range []struct{ name, commands, problem string }{
		{"flush", "IPTABLES -F", "chain GANGWAY-INPUT of table filter has other rules than ours"},
		{"flush nat", "IPTABLES -t nat -F", "chain GANGWAY-POSTROUTING of table nat has other rules than ours"},
		{"flush and delete", "IPTABLES -F; IPTABLES -X", "chain GANGWAY-INPUT of table filter is missing"},
		{"flush a hook", "IPTABLES -F FORWARD", "the jump from FORWARD to GANGWAY-FORWARD in table filter is missing"},
		{"another first", "IPTABLES -I FORWARD -j ACCEPT",
			`the jump from FORWARD to GANGWAY-FORWARD in table filter stands behind "-j ACCEPT"`},
		{"jump twice", "IPTABLES -I INPUT -j GANGWAY-INPUT",
			"the jump from INPUT to GANGWAY-INPUT in table filter stands there 2 times"},
		{"rule deleted", "IPTABLES -D GANGWAY-FORWARD 3", "chain GANGWAY-FORWARD of table filter has other rules than ours"},
		{"rule inserted", "IPTABLES -I GANGWAY-FORWARD -j ACCEPT", "chain GANGWAY-FORWARD of table filter has other rules than ours"},
		{"IPv6 flush", "IP6TABLES -F", "IPv6: chain GANGWAY-INPUT of table filter has other rules than ours"},
		{"IPv6 flush and delete", "IP6TABLES -F; IP6TABLES -X", "IPv6: chain GANGWAY-INPUT of table filter is missing"},
		{"IPv6 jump gone", "IP6TABLES -D FORWARD -j GANGWAY-FORWARD", "IPv6: the jump from FORWARD to GANGWAY-FORWARD in table filter is missing"},
		{"IPv6 another first", "IP6TABLES -I FORWARD -j ACCEPT",
			`IPv6: the jump from FORWARD to GANGWAY-FORWARD in table filter stands behind "-j ACCEPT"`},
		{"IPv6 rule deleted", "IP6TABLES -D GANGWAY-FORWARD 1", "IPv6: chain GANGWAY-FORWARD of table filter has other rules than ours"},
		{"both flushed", "IP6TABLES -F; IPTABLES -F", "chain GANGWAY-INPUT of table filter has other rules than ours"},
		{"rule replaced", "IPTABLES -t nat -R GANGWAY-POSTROUTING 1 -j ACCEPT", "chain GANGWAY-POSTROUTING of table nat has other rules than ours"},
	} {
		t.Run(damage.name, func(t *testing.T) {
			forBackends(t, func(t *testing.T, host *namespace, f *Firewall) {
				apply(t, f, plan.InstallChains{}, add(plan.SetNAT, "10.0.0.0/24,eth0"))
				before := saved(host, f)
				observe(t, f)
				host.sh("%s", strings.NewReplacer("IP6TABLES", f.ipv6.name, "IPTABLES", f.ipv4.name).Replace(damage.commands))
				got := observe(t, f)
				if got.Chains || got.Problem != damage.problem {
					t.Errorf("chains intact: %v, problem %q, want %q", got.Chains, got.Problem, damage.problem)
				}
				apply(t, f, plan.InstallChains{})
				if got := observe(t, f); !got.Chains || len(got.Sets[plan.SetNAT]) != 1 {
					t.Errorf("after mending: %+v", got)
				}
				after := saved(host, f)
				if strings.HasSuffix(damage.name, "another first") {
					after = strings.Replace(after, "-A FORWARD -j ACCEPT\n", "", 1) // theirs; it stays
				}
				if d := cmp.Diff(before, after); d != "" {
					t.Errorf("after mending (-before +after):\n%s", d)
				}
			})
		})
	}
}

// A rule of somebody else's that uses what is ours keeps it from being removed, by an error
// that says so.
func TestRemoveReferenced(t *testing.T) {
	forBackends(t, func(t *testing.T, host *namespace, f *Firewall) {
		apply(t, f, plan.InstallChains{})
		host.run(f.ipv4.name, "-A", "OUTPUT", "-m", "set", "--match-set", plan.SetOut, "src,dst", "-j", "ACCEPT")
		err := f.Apply(context.Background(), []plan.Op{plan.RemoveFirewall{}})[0].Err
		if want := `cannot destroy set "gangway-out": busy: a rule that isn't ours refers to it`; err == nil || err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
		host.run(f.ipv4.name, "-F", "OUTPUT")
		apply(t, f, plan.RemoveFirewall{})
	})
}

func TestSetEntries(t *testing.T) {
	host := newNamespace(t, "host")
	host.enter()
	f := newFirewall(t, "iptables-nft")
	apply(t, f, remove(plan.SetOut, "10.0.0.0/24,eth0")) // no such set
	apply(t, f, plan.InstallChains{})

	var ops []plan.Op
	var want []string
	for i := range 200 {
		text := fmt.Sprintf("10.%d.%d.0/24,gway%d", i/256, i%256, i)
		ops = append(ops, add(plan.SetLocal, text), add(plan.SetLocal, text))
		want = append(want, text)
	}
	ops = append(ops, add(plan.SetOut, "10.0.0.0/8,a"), add(plan.SetOut, "10.0.0.1/32,a"), add(plan.SetOut, "10.0.0.77/24,wlp0s20f3abcde"))
	start := time.Now()
	apply(t, f, ops...)
	if took := time.Since(start); took > time.Second {
		t.Errorf("%d entries took %v", len(ops), took)
	}
	texts := func(entries []vnet.SetEntry) (out []string) {
		for _, e := range entries {
			out = append(out, e.Prefix.String()+","+e.Interface)
		}
		slices.Sort(out)
		return out
	}
	slices.Sort(want)
	if d := cmp.Diff(want, texts(observe(t, f).Sets[plan.SetLocal])); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"10.0.0.0/24,wlp0s20f3abcde", "10.0.0.0/8,a", "10.0.0.1/32,a"}, texts(observe(t, f).Sets[plan.SetOut])); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}
	if got := host.run("ipset", "test", plan.SetLocal, "10.0.199.7,gway199"); !strings.Contains(got, "is in set") {
		t.Errorf("the ipset tool says %q", got)
	}
	apply(t, f, remove(plan.SetOut, "10.0.0.0/8,a"), remove(plan.SetOut, "10.0.0.0/8,a"))
	if got := texts(observe(t, f).Sets[plan.SetOut]); len(got) != 2 {
		t.Errorf("entries after a deletion: %q", got)
	}
}

func TestSetEntryErrors(t *testing.T) {
	newNamespace(t, "host").enter()
	f := newFirewall(t, "iptables-nft")
	apply(t, f, plan.InstallChains{})
	// The kernel stores a subnet with 64 interfaces and no more.
	for i := range 64 {
		apply(t, f, add(plan.SetOut, fmt.Sprintf("10.0.0.0/24,eth%d", i)))
	}
	for _, test := range []struct {
		op   plan.Op
		want string
	}{
		{add(plan.SetOut, "10.0.0.0/24,eth64"), "64 interfaces"},
		{add("gangway-nothing", "10.0.0.0/24,eth0"), `cannot add 10.0.0.0/24,eth0 to set "gangway-nothing"`},
		{add(plan.SetOut, "2001:db8::/64,eth0"), "not an IPv4 prefix"},
		{add(plan.SetOut, "0.0.0.0/0,eth0"), "not an IPv4 prefix"},
		{add(plan.SetOut, "10.0.0.0/24,"), "not an interface name"},
		{add(plan.SetOut, "10.0.0.0/24,sixteen-letters-"), "not an interface name"},
		{plan.SetLinkUp{Name: "lo"}, `cannot carry out "bring up lo": not an operation of the firewall`},
	} {
		outcomes := f.Apply(context.Background(), []plan.Op{test.op, add(plan.SetNAT, "10.0.0.0/24,eth0")})
		if err := outcomes[0].Err; err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want %q in it", test.op, err, test.want)
		}
		if outcomes[1].Err != nil {
			t.Errorf("the operation behind %q has failed, too: %v", test.op, outcomes[1].Err)
		}
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	newNamespace(t, "host").enter()
	_, err := New(Options{Program: "iptables-of-nobody"})
	if err == nil || !strings.Contains(err.Error(), `cannot find program "iptables-of-nobody"`) {
		t.Errorf("error is %v", err)
	}
}

// Somebody's set under our name isn't taken for ours.
func TestSetOfAnotherType(t *testing.T) {
	host := newNamespace(t, "host")
	host.enter()
	f := newFirewall(t, "iptables-nft")
	host.run("ipset", "create", plan.SetOut, "hash:ip")
	if _, err := f.Observe(context.Background()); err == nil || !strings.Contains(err.Error(), `"hash:ip"`) {
		t.Errorf("observing: %v", err)
	}
	if err := f.Apply(context.Background(), []plan.Op{plan.InstallChains{}})[0].Err; err == nil || !strings.Contains(err.Error(), plan.SetOut) {
		t.Errorf("installing: %v", err)
	}
}
