package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// Not one frame slips through while guards take each other's place, nor is one lost.
func TestGuardReplaced(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	other := guardSpec()
	other.Hosts, other.Retired = []string{hostMAC}, []netip.Prefix{netip.MustParsePrefix("2001:db8:b::/64")}
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	// The guest floods, the reply is counted at the far end.
	from, far := d.host.station(inner), d.lan.station("eth0")
	ra, arp := ether6(allNodes, packet(local, all, advertisement())), ethernet("ff:ff:ff:ff:ff:ff", unix.ETH_P_ARP, make([]byte, 28))
	echo := ether6(lanMAC, packet("2001:db8:a::10", "2001:db8:a::1", icmp6(128)))
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				sent <- n
				return
			default:
			}
			from.send(1, ra)
			from.send(2, arp)
			from.send(3, echo)
			n++
		}
	}()
	for i := range 100 {
		spec := guardSpec()
		if i%2 == 0 {
			spec = other
		}
		if i%10 == 5 { // somebody breaks it: the chain that is left of it stands until there is a whole one
			d.host.run("nft", "flush", "chain", "netdev", plan.GuardTable, "default-outer")
		}
		apply(t, d.firewall, plan.SetGuard{Spec: spec})
		if got := d.guarded(t); got != spec.Digest() {
			t.Errorf("round %d: observed %q, want %q", i, got, spec.Digest())
		}
	}
	close(stop)
	n := <-sent
	from.send(4, echo)
	eventually(t, "the last frame", func() bool { return far.count(4) == 1 })
	if ras, arps := far.count(1), far.count(2); ras+arps > 0 {
		t.Errorf("%d advertisements and %d of ARP passed, of %d", ras, arps, n)
	}
	if n < 200 || far.count(3) == 0 {
		t.Errorf("%d rounds of frames, of which %d echoes passed: the test shows nothing", n, far.count(3))
	}
}

// While one guard takes another's place, what passes both passes.
func TestGuardReplacedLosesNothing(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	from, far := d.host.station(inner), d.lan.station("eth0")
	echo := ether6(lanMAC, packet("2001:db8:a::10", "2001:db8:a::1", icmp6(128)))
	other := guardSpec()
	other.Hosts = []string{hostMAC}
	sent := 0
	for i := range 40 {
		spec := guardSpec()
		if i%2 == 0 {
			spec = other
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 50 {
				from.send(3, echo)
				sent++
			}
		}()
		apply(t, d.firewall, plan.SetGuard{Spec: spec})
		<-done
	}
	eventually(t, "all frames", func() bool { return far.count(3) == sent })
}

// An interface that goes takes the guard's binding along or not, by the kernel's age: what is seen is
// that it doesn't stand, and the next one of the name is guarded.
func TestGuardedDeviceGoes(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	want := guardSpec().Digest()
	if got := d.guarded(t); got != "none" {
		t.Errorf("before: %q", got)
	}
	for round := range 3 {
		apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
		if got := d.guarded(t); got != want {
			t.Fatalf("round %d: installed: %q", round, got)
		}
		d.host.run("ip", "link", "delete", inner)
		if got := d.guarded(t); got == want {
			t.Errorf("round %d: without the interfaces the guard is said to stand", round)
		}
		err := d.firewall.Apply(context.Background(), []plan.Op{plan.SetGuard{Spec: guardSpec()}})[0].Err
		if err == nil || err.Error() != `cannot guard IPv6-only link of "default": there is no interface "gw6testn"` {
			t.Errorf("round %d: error is %v", round, err)
		}
		d.join(t)
		if got := d.guarded(t); got == want { // bound by name: it must hold what is promised
			d.check(t)
		}
		apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
		if got := d.guarded(t); got != want {
			t.Errorf("round %d: mended: %q", round, got)
		}
		d.check(t)
	}
	// One that takes another's name isn't guarded under it.
	d.host.sh("ip link set %[1]s down; ip link set %[1]s name gw6else; ip link set gw6else up", outer)
	if got := d.guarded(t); got == want {
		t.Error("renamed: the guard is said to stand")
	}
	d.host.sh("ip link set gw6else down; ip link set gw6else name %[1]s; ip link set %[1]s up", outer)
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	if got := d.guarded(t); got != want {
		t.Errorf("renamed back: %q", got)
	}
	d.check(t)
}

// check sends forbidden frames both ways, and an allowed one behind them.
func (d *dock) check(t *testing.T) {
	t.Helper()
	for i, way := range []struct{ from, to *station }{
		{d.host.station(inner), d.lan.station("eth0")}, {d.lan.station("eth0"), d.guest.station("eth0")},
	} {
		way.from.send(1, ethernet("ff:ff:ff:ff:ff:ff", unix.ETH_P_ARP, make([]byte, 28)))
		if i == 0 {
			way.from.send(2, ether6(allNodes, packet(local, all, advertisement())))
		}
		eventually(t, "an echo passes", func() bool {
			way.from.send(3, ether6(allNodes, packet(local, all, icmp6(128))))
			return way.to.count(3) > 0
		})
		if way.to.count(1)+way.to.count(2) > 0 {
			t.Errorf("way %d: forbidden frames pass", i)
		}
	}
}

// Kernels before 6.16 take the interface out of the chain, or the chain away.
func TestGuardUnbound(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	generation, err := d.firewall.generation()
	must(t, err)
	b := d.firewall.netlink.newBatch(generation)
	b.add(unix.NFPROTO_NETDEV, unix.NFT_MSG_DELCHAIN, 0, text(unix.NFTA_CHAIN_TABLE, plan.GuardTable), text(unix.NFTA_CHAIN_NAME, "default-outer"),
		nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 0), number(unix.NFTA_HOOK_PRIORITY, 0),
			nested(nftaHookDevs, text(1, outer))))
	must(t, b.commit())
	if got := d.guarded(t); got != "" {
		t.Errorf("a chain without its interface: %q", got)
	}
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	if got := d.guarded(t); got != guardSpec().Digest() {
		t.Errorf("mended: %q", got)
	}
	d.check(t)
}

// What others break is heard of, seen and mended.
func TestGuardTampered(t *testing.T) {
	for _, test := range []struct{ name, commands, want string }{
		{"ruleset flushed", "nft flush ruleset", "none"},
		{"table deleted", "nft delete table netdev gangway", "none"},
		{"table flushed", "nft flush table netdev gangway", ""},
		{"chain deleted", "nft delete chain netdev gangway default-inner", ""},
		{"chain flushed", "nft flush chain netdev gangway default-outer", ""},
		{"rule added", "nft add rule netdev gangway default-outer accept", ""},
		{"rule inserted", "nft insert rule netdev gangway default-inner accept", ""},
		{"rule deleted", "nft delete rule netdev gangway default-outer handle $(nft -a list chain netdev gangway default-outer | sed -n 's/.*redirect.*handle //p')", ""},
		{"rule replaced", "nft replace rule netdev gangway default-outer handle $(nft -a list chain netdev gangway default-outer | sed -n 's/.*redirect.*handle //p') accept", ""},
		{"policy", "nft add chain netdev gangway default-outer '{ policy accept; }'", ""},
		{"table asleep", "nft add table netdev gangway '{ flags dormant; }'", ""},
		{"saved and restored", "nft list ruleset > $T; nft flush ruleset; nft -f $T", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDock(t, "iptables-legacy") // whose own rules are no news
			apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()}, plan.InstallChains{})
			if got := d.guarded(t); got != guardSpec().Digest() {
				t.Fatalf("before: %q", got)
			}
			pokes := watching(t, d.host, d.firewall)
			d.host.sh("%s", strings.ReplaceAll(test.commands, "$T", t.TempDir()+"/rules"))
			awaitPoke(t, pokes)
			if got := d.guarded(t); got != test.want {
				t.Errorf("observed %q, want %q", got, test.want)
			}
			apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
			if got := d.guarded(t); got != guardSpec().Digest() {
				t.Errorf("mended: %q", got)
			}
			d.check(t)
		})
	}
}

// Guards of several networks don't touch each other, and go one by one, the table with the last.
func TestGuardsComeAndGo(t *testing.T) {
	for _, program := range backends {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			host := newNamespace(t, "host")
			host.enter()
			host.sh(`nft add table inet gangway
				nft add chain inet gangway default-inner
				nft add table netdev others`)
			before := nftRuleset(host)
			f := newFirewall(t, program)
			var specs []plan.GuardSpec
			for _, network := range []string{"a", "a-inner", "b_2"} {
				spec := plan.GuardSpec{Network: network, Inner: "gw6" + network + "n", Outer: "gw6" + network + "u"}
				host.run("ip", "link", "add", spec.Inner, "type", "veth", "peer", "name", spec.Outer)
				specs = append(specs, spec)
			}
			if observe(t, f).Present {
				t.Error("something counts as present before")
			}
			want := map[string]string{}
			for _, spec := range specs {
				apply(t, f, plan.SetGuard{Spec: spec}, plan.SetGuard{Spec: spec})
				want[spec.Network] = spec.Digest()
				got := observe(t, f)
				if d := cmp.Diff(want, got.Guards); d != "" || !got.Present {
					t.Errorf("present: %v, guards (-want +got):\n%s", got.Present, d)
				}
			}
			if d := cmp.Diff(want, observe(t, newFirewall(t, program)).Guards); d != "" {
				t.Errorf("another process (-want +got):\n%s", d)
			}
			for _, spec := range specs {
				apply(t, f, plan.DeleteGuard{Network: spec.Network}, plan.DeleteGuard{Network: spec.Network})
				delete(want, spec.Network)
				if d := cmp.Diff(want, observe(t, f).Guards); d != "" {
					t.Errorf("after a deletion (-want +got):\n%s", d)
				}
			}
			if d := cmp.Diff(before, nftRuleset(host)); d != "" {
				t.Errorf("after the last (-before +after):\n%s", d)
			}
			for _, spec := range specs {
				apply(t, f, plan.SetGuard{Spec: spec})
			}
			apply(t, f, plan.RemoveFirewall{}, plan.RemoveFirewall{})
			if d := cmp.Diff(before, nftRuleset(host)); d != "" {
				t.Errorf("after removal (-before +after):\n%s", d)
			}
			if got := observe(t, f); got.Present || len(got.Guards) > 0 {
				t.Errorf("after removal: %+v", got)
			}
		})
	}
}

// However much a guard is made from, it is known again.
func TestGuardOfManyHosts(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	spec := guardSpec()
	for i := range 100 {
		spec.Hosts = append(spec.Hosts, fmt.Sprintf("02:11:11:11:11:%02x", i))
		spec.Retired = append(spec.Retired, netip.MustParsePrefix(fmt.Sprintf("2001:db8:1234:5678:9abc:def0:1234:%x/128", 0x1000+i)))
	}
	apply(t, d.firewall, plan.SetGuard{Spec: spec})
	if got := d.guarded(t); got != spec.Digest() {
		t.Errorf("observed %q, want %q", got, spec.Digest())
	}
	d.check(t)
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	if got := d.guarded(t); got != guardSpec().Digest() {
		t.Errorf("observed %q, want %q", got, guardSpec().Digest())
	}
}

// A table of the name that isn't ours is left alone.
func TestGuardTableOfOthers(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	d.host.sh(`nft add table netdev gangway '{ comment "mine"; }'
		nft add chain netdev gangway default-outer`)
	before := nftRuleset(d.host)
	err := d.firewall.Apply(context.Background(), []plan.Op{plan.SetGuard{Spec: guardSpec()}})[0].Err
	if want := `cannot guard IPv6-only link of "default": table "gangway" of family netdev is somebody else's`; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	if got := observe(t, d.firewall); got.Present || len(got.Guards) > 0 {
		t.Errorf("taken for ours: %+v", got)
	}
	apply(t, d.firewall, plan.DeleteGuard{Network: "default"}, plan.RemoveFirewall{})
	after := nftRuleset(d.host)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("ruleset (-before +after):\n%s", diff)
	}
}

// Something of others in our table stays when the last guard goes, and the table with it.
func TestGuardTableUsedByOthers(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	d.host.run("nft", "add", "counter", "netdev", plan.GuardTable, "others")
	apply(t, d.firewall, plan.DeleteGuard{Network: "default"})
	if got := nftRuleset(d.host); !strings.Contains(got, "counter others") {
		t.Errorf("the counter is gone:\n%s", got)
	}
	if got := observe(t, d.firewall); !got.Present || len(got.Guards) > 0 {
		t.Errorf("observed %+v", got)
	}
}

// A look at guards that stand costs no dump, and setting one makes nobody read iptables' rules again.
func TestGuardLooksAreFew(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	apply(t, d.firewall, plan.InstallChains{})
	observe(t, d.firewall)
	d.firewall.seen.problem = "kept"
	apply(t, d.firewall, plan.SetGuard{Spec: guardSpec()})
	if got := observe(t, d.firewall); got.Problem != "kept" || got.Guards["default"] != guardSpec().Digest() {
		t.Errorf("after SetGuard: %+v", got)
	}
	d.firewall.watched.digests["kept"] = "kept"
	if got := observe(t, d.firewall); got.Problem != "kept" || got.Guards["kept"] != "kept" {
		t.Errorf("nothing has changed, and it was read again: %+v", got)
	}
	d.host.run("nft", "add", "table", "inet", "others")
	if got := observe(t, d.firewall); got.Problem != "" || len(got.Guards) != 1 {
		t.Errorf("another generation: %+v", got)
	}
}

func TestGuardErrors(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	for _, test := range []struct {
		change func(*plan.GuardSpec)
		want   string
	}{
		{func(s *plan.GuardSpec) { s.Network = "No" }, "does not begin with a letter"},
		{func(s *plan.GuardSpec) { s.Outer = s.Inner }, `both ends are "gw6testn"`},
		{func(s *plan.GuardSpec) { s.Outer = "gw6nobody" }, `there is no interface "gw6nobody"`},
		{func(s *plan.GuardSpec) { s.Outer = "an-interface-name-that-is-too-long" }, `there is no interface "an-interface`},
		{func(s *plan.GuardSpec) { s.Hosts = []string{"02:11"} }, `"02:11" is not an Ethernet address`},
		{func(s *plan.GuardSpec) { s.Retired = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }, `"10.0.0.0/8" is not an IPv6 prefix`},
		{func(s *plan.GuardSpec) { s.Retired = []netip.Prefix{{}} }, "is not an IPv6 prefix"},
	} {
		spec := guardSpec()
		test.change(&spec)
		err := d.firewall.Apply(context.Background(), []plan.Op{plan.SetGuard{Spec: spec}})[0].Err
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "cannot guard IPv6-only link of") {
			t.Errorf("error is %v, want %q in it", err, test.want)
		}
	}
	if got := observe(t, d.firewall); len(got.Guards) > 0 {
		t.Errorf("guards: %v", got.Guards)
	}
}
