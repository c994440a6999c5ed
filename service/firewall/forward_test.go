package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// Guests reach each other by way of their router where their bridge is named, and nowhere else.
func TestHairpin(t *testing.T) {
	forLaptops6(t, func(t *testing.T, l *laptop) {
		apply(t, l.firewall, plan.SetForward{Spec: plan.ForwardSpec{Hairpin: []string{"gway0"}}})
		both(t, l.alice, "["+bob6+"]:7", alice6, alice6)
		both(t, l.bob, "["+alice6+"]:7", bob6, bob6)
		both(t, l.carol, "["+alice6+"]:7", silence, silence)
		both(t, l.alice, "["+carol6+"]:7", silence, silence)
		both(t, l.alice, "["+server6+"]:7", alice6, alice6)
		if got := l.host.forwarded()["hairpin"]; got == 0 {
			t.Error("nothing is counted")
		}

		apply(t, l.firewall, plan.SetForward{Spec: plan.ForwardSpec{Hairpin: []string{"gway1", "gway7"}}})
		both(t, l.alice, "["+bob6+"]:7", silence, silence)
		both(t, l.carol, "["+alice6+"]:7", silence, silence)
		both(t, l.alice, "["+server6+"]:7", alice6, alice6)
		// IPv4 is none of its business, nor what has nothing to do with our bridges.
		both(t, l.alice, server+":7", "192.0.2.2", "192.0.2.2")
		both(t, l.dock, "[2001:db8:b::2]:7", "2001:db8:d::1", "2001:db8:d::1")
		if got := l.host.forwarded()["among bridges"]; got == 0 {
			t.Error("what is dropped isn't counted")
		}
	})
}

// What goes from port to port isn't routed, also where br_netfilter shows it to the filter.
func TestForwardBridged(t *testing.T) {
	l := newLaptop6(t, "iptables-nft")
	l.host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-ip6tables=1")
	apply(t, l.firewall, plan.SetForward{})
	for i, n := range []*namespace{l.alice, l.bob} {
		n.run("ip", "addr", "add", fmt.Sprintf("fd00:7::%d/64", i), "dev", "eth0", "nodad")
	}
	both(t, l.alice, "[fd00:7::1]:7", "fd00:7::", "fd00:7::")
	both(t, l.alice, "["+bob6+"]:7", silence, silence)
	if got := l.host.forwarded(); got["bridged"] == 0 || got["among bridges"] == 0 {
		t.Errorf("counted: %v", got)
	}
}

var fullForward = plan.ForwardSpec{Hairpin: []string{"gway0", "gway1"}, Follow: []string{"gway0"}, Plain: []string{"eth0", "wlan0"}}

// forwarded returns how much each rule of the filter has counted, by its name.
func (n *namespace) forwarded() map[string]int {
	n.t.Helper()
	counts := n.counted("ip6", plan.ForwardTable, forwardFilterChain)
	counts["past a tunnel"] = n.counted("inet", plan.ForwardTable, forwardFilterChain)["past a tunnel"]
	return counts
}

// What is observed is the filter as a whole, or that it isn't.
func TestForwardSeen(t *testing.T) {
	for _, damage := range []struct{ name, commands string }{
		{"flushed", "nft flush chain inet gangway forward"},
		{"deleted", "nft delete table inet gangway"},
		{"IPv6 flushed", "nft flush chain ip6 gangway forward"},
		{"IPv6 deleted", "nft delete table ip6 gangway"},
		{"rule deleted", "nft delete rule ip6 gangway forward handle $(nft -a list chain ip6 gangway forward | awk '/among bridges/ {print $NF}')"},
		{"tunnel rule deleted", "nft delete rule inet gangway forward handle $(nft -a list chain inet gangway forward | awk '/past a tunnel/ {print $NF}')"},
		{"rule added", "nft insert rule inet gangway forward accept"},
		{"rule replaced", "nft replace rule inet gangway forward handle $(nft -a list chain inet gangway forward | awk '/past a tunnel/ {print $NF}') drop"},
		{"dormant", "nft add table inet gangway '{ flags dormant; }'"},
		{"ruleset flushed", "nft flush ruleset"},
	} {
		t.Run(damage.name, func(t *testing.T) {
			t.Parallel()
			host := newNamespace(t, "host")
			host.enter()
			f := newFirewall(t, "iptables-nft")
			apply(t, f, plan.SetForward{Spec: fullForward})
			whole := host.sh("nft -s list table inet gangway; nft -s list table ip6 gangway")
			for _, line := range []string{`iifname { "gway0" } oifname { "eth0", "wlan0" } fib daddr oifname != "" fib daddr oifname != { "eth0", "wlan0" } counter drop comment "past a tunnel"`,
				`iifname . oifname { "gway0" . "gway0", "gway1" . "gway1" } counter accept comment "hairpin"`} {
				if !strings.Contains(whole, line) {
					t.Errorf("%s isn't in\n%s", line, whole)
				}
			}
			if got := observe(t, f); got.Forward != fullForward.Digest() || !got.Present {
				t.Fatalf("observed %q, present %v", got.Forward, got.Present)
			}
			host.sh("%s", damage.commands)
			if got := observe(t, f); got.Forward != "" {
				t.Errorf("damaged, observed %q", got.Forward)
			}
			apply(t, f, plan.SetForward{Spec: fullForward}, plan.SetForward{Spec: fullForward})
			if got := observe(t, f).Forward; got != fullForward.Digest() {
				t.Errorf("mended, observed %q", got)
			}
			if d := cmp.Diff(whole, host.sh("nft -s list table inet gangway; nft -s list table ip6 gangway")); d != "" {
				t.Errorf("mended (-before +after):\n%s", d)
			}
			if got := observe(t, newFirewall(t, "iptables-legacy")).Forward; got != fullForward.Digest() {
				t.Errorf("another process observed %q", got)
			}
		})
	}
}

// named counts the names that the rule about tunnels has with that beginning.
func named(spec plan.ForwardSpec, beginning string) (count int) {
	if len(spec.Follow) == 0 || len(spec.Plain) == 0 {
		return 0
	}
	for _, name := range slices.Concat(spec.Follow, spec.Plain, spec.Plain) {
		if strings.HasPrefix(name, beginning) {
			count++
		}
	}
	return count
}

// One filter takes another's place, and goes by itself, or with all that is ours.
func TestForwardComesAndGoes(t *testing.T) {
	for _, program := range backends {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			host := newNamespace(t, "host")
			host.enter()
			host.run("nft", "add table inet others; add chain inet others forward { type filter hook forward priority -1; }")
			before := nftRuleset(host)
			f := newFirewall(t, program)
			var many plan.ForwardSpec
			for i := range 1500 {
				many.Hairpin = append(many.Hairpin, fmt.Sprintf("gway%d", i))
			}
			many.Follow, many.Plain = many.Hairpin, many.Hairpin
			for _, spec := range []plan.ForwardSpec{{}, fullForward, {Hairpin: []string{"gway0"}}, {Follow: []string{"gway0"}}, many, {Plain: []string{"eth0"}}, fullForward} {
				apply(t, f, plan.SetForward{Spec: spec})
				if got := observe(t, f).Forward; got != spec.Digest() {
					t.Errorf("%s: observed %q, want %q", plan.SetForward{Spec: spec}, got, spec.Digest())
				}
				if got := strings.Count(nftRuleset(host), `"gway`); got != 2*len(spec.Hairpin)+named(spec, "gway") {
					t.Errorf("%d names of bridges, want %d pairs and %d more", got, len(spec.Hairpin), named(spec, "gway"))
				}
			}
			apply(t, f, plan.DeleteForward{}, plan.DeleteForward{})
			if got := observe(t, f); got.Forward != "" || got.Present {
				t.Errorf("deleted: %+v", got)
			}
			if d := cmp.Diff(before, nftRuleset(host)); d != "" {
				t.Errorf("deleted (-before +after):\n%s", d)
			}
			apply(t, f, plan.SetForward{Spec: fullForward}, plan.RemoveFirewall{}, plan.RemoveFirewall{})
			if d := cmp.Diff(before, nftRuleset(host)); d != "" {
				t.Errorf("removed (-before +after):\n%s", d)
			}
			if observe(t, f).Present {
				t.Error("something is present")
			}
		})
	}
}

// A table of the name that isn't ours is left alone.
func TestForwardTableOfOthers(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	host.enter()
	host.run("nft", `add table inet gangway { comment "mine"; }; add chain inet gangway forward`)
	before := nftRuleset(host)
	f := newFirewall(t, "iptables-nft")
	err := f.Apply(context.Background(), []plan.Op{plan.SetForward{Spec: fullForward}})[0].Err
	if want := `cannot filter what is routed: table "gangway" of family inet is somebody else's`; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	if got := observe(t, f); got.Forward != "" || got.Present {
		t.Errorf("taken for ours: %+v", got)
	}
	apply(t, f, plan.DeleteForward{}, plan.RemoveFirewall{})
	if d := cmp.Diff(before, nftRuleset(host)); d != "" {
		t.Errorf("ruleset (-before +after):\n%s", d)
	}
}

// br_netfilter's coming makes it another filter: one that doesn't know bridged frames would drop them.
func TestForwardLearnsOfBridgeNetfilter(t *testing.T) {
	host := newNamespace(t, "host")
	host.enter() // the thread isn't used again: what is mounted here goes with it
	must(t, unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("none", "/proc/sys/net/bridge", "tmpfs", 0, ""))
	f := newFirewall(t, "iptables-nft")
	apply(t, f, plan.SetForward{Spec: fullForward})
	if got := observe(t, f).Forward; got != fullForward.Digest() || strings.Contains(nftRuleset(host), "physdev") {
		t.Errorf("without br_netfilter: %q\n%s", got, nftRuleset(host))
	}
	must(t, unix.Unmount("/proc/sys/net/bridge", 0))
	if got := observe(t, f).Forward; got != "" {
		t.Errorf("br_netfilter has come, observed %q", got)
	}
	apply(t, f, plan.SetForward{Spec: fullForward})
	if got := observe(t, f).Forward; got != fullForward.Digest() || !strings.Contains(nftRuleset(host), "physdev") {
		t.Errorf("with br_netfilter: %q\n%s", got, nftRuleset(host))
	}
}

// A look at the filter that stands costs no dump, and setting one makes nobody read iptables' rules again.
func TestForwardLooksAreFew(t *testing.T) {
	t.Parallel()
	newNamespace(t, "host").enter()
	f := newFirewall(t, "iptables-nft")
	apply(t, f, plan.InstallChains{})
	observe(t, f)
	f.seen.problem = "kept"
	apply(t, f, plan.SetForward{Spec: fullForward})
	if got := observe(t, f); got.Problem != "kept" || got.Forward != fullForward.Digest() {
		t.Errorf("after SetForward: %+v", got)
	}
	f.watched.forward.both, f.watched.forward.ipv6 = "kept", "kept"
	if got := observe(t, f); got.Forward != "kept" {
		t.Errorf("nothing has changed, and it was read again: %+v", got)
	}
}

// The filter is whole if both its parts were made from the same, for a kernel as it is now.
func TestForwardWhole(t *testing.T) {
	for _, test := range []struct {
		seen          forwardLook
		ipv6, bridged bool
		want          string
	}{
		{forwardLook{"a", "a", false}, true, false, "a"},
		{forwardLook{"a", "a", true}, true, true, "a"},
		{forwardLook{"a", "a", true}, true, false, ""},
		{forwardLook{"a", "b", false}, true, false, ""},
		{forwardLook{"a", "", false}, true, false, ""},
		{forwardLook{"", "a", false}, true, false, ""},
		{forwardLook{"a", "", false}, false, true, "a"},
		{forwardLook{}, false, false, ""},
	} {
		if got := test.seen.digest(test.ipv6, test.bridged); got != test.want {
			t.Errorf("%+v: %q, want %q", test, got, test.want)
		}
	}
}

func TestForwardErrors(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	host.enter()
	f := newFirewall(t, "iptables-nft")
	for _, name := range []string{"", "sixteen-letters-", "a\x00b"} {
		for _, spec := range []plan.ForwardSpec{{Hairpin: []string{name}}, {Follow: []string{name}}, {Plain: []string{name}}} {
			err := f.Apply(context.Background(), []plan.Op{plan.SetForward{Spec: spec}})[0].Err
			if want := fmt.Sprintf("cannot filter what is routed: %q is not an interface name", name); err == nil || err.Error() != want {
				t.Errorf("error is %v, want %s", err, want)
			}
		}
	}
	// A kernel that lacks an expression: it is named, and the other part stands.
	c := tunnelFilter(fullForward)
	c.rules[0].steps = append([]expression{step("nobody's")}, c.rules[0].steps...)
	err := f.putForward([]forwardPart{{forwardTable, c, bothFamilies}, {forward6Table, bridgeFilter(fullForward, false), variantOf(false)}}, "digest")
	if err == nil || !strings.Contains(err.Error(), "the kernel lacks fib for nf_tables (CONFIG_NFT_FIB_INET)") || !errors.Is(err, unix.ENOENT) {
		t.Errorf("error is %v", err)
	}
	if got := nftRuleset(host); strings.Contains(got, "inet gangway") || !strings.Contains(got, "hairpin") {
		t.Errorf("there is\n%s", got)
	}
	if got := observe(t, f); got.Forward != "" || !got.Present {
		t.Errorf("observed %q", got.Forward)
	}
	apply(t, f, plan.SetForward{Spec: fullForward})
	if got := observe(t, f).Forward; got != fullForward.Digest() {
		t.Errorf("observed %q in the end", got)
	}
}
