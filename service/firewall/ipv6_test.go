package firewall

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

func forDocks(t *testing.T, test func(t *testing.T, d *dock)) {
	for _, program := range backends {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			test(t, newDock(t, program))
		})
	}
}

// Docker sets FORWARD's policy to DROP, and br_netfilter sends bridged frames there, of both bridges.
func TestForwardPolicyDrop6(t *testing.T) {
	forDocks(t, func(t *testing.T, d *dock) {
		apply(t, d.firewall, plan.InstallChains{}, plan.SetGuard{Spec: guardSpec()})
		d.host.sh("sysctl -qw net.bridge.bridge-nf-call-ip6tables=1; %s -P FORWARD DROP", d.firewall.ipv6.name)
		d.lan.serve("[::]:7")
		d.guest.serve("[::]:7")
		works := func() {
			t.Helper()
			if !d.guest.pings("2001:db8:a::1") || !d.lan.pings("2001:db8:a::10") {
				t.Error("guest and link don't reach each other")
			}
			if !d.guest.pings("2001:db8:a::1", "-s", "5000") {
				t.Error("no echo that comes in fragments")
			}
			if !d.guest.pings("2001:db8:a::11") {
				t.Error("guests don't reach each other")
			}
			both(t, d.guest, "[2001:db8:a::1]:7", "2001:db8:a::10", "2001:db8:a::10")
			both(t, d.lan, "[2001:db8:a::10]:7", "2001:db8:a::1", "2001:db8:a::1")
		}
		works()

		// It is our rules that do it, and after a flush we have them back.
		d.host.run(d.firewall.ipv6.name, "-F")
		if !d.guest.silent("2001:db8:a::1") || !d.guest.silent("2001:db8:a::11") {
			t.Error("the policy drops nothing: the test shows nothing")
		}
		if got := observe(t, d.firewall); got.Chains || !strings.HasPrefix(got.Problem, "IPv6: ") {
			t.Errorf("the flush wasn't noticed: %q", got.Problem)
		}
		apply(t, d.firewall, plan.InstallChains{})
		works()

		// Somebody else's bridges aren't helped.
		d.host.sh("ip link set %s nomaster; ip link set guest0 master br0", inner)
		if !d.guest.silent("2001:db8:a::1") {
			t.Error("a bridge of somebody else's passes what the policy drops")
		}
	})
}

// A host that forwards IPv6 doesn't do so for guests, nor to them.
func TestNothingIsRouted6(t *testing.T) {
	forDocks(t, func(t *testing.T, d *dock) {
		box := newNamespace(t, "box")
		wire(d.host, "box0", box, "eth0")
		d.host.sh(`sysctl -qw net.ipv6.conf.all.forwarding=1
			ip link set %s nomaster
			ip addr add 2001:db8:1::1/64 dev gway0 nodad; ip addr add 2001:db8:2::1/64 dev box0 nodad`, inner)
		d.guest.sh("ip addr add 2001:db8:1::10/64 dev eth0 nodad; ip -6 route add default via 2001:db8:1::1")
		box.sh("ip addr add 2001:db8:2::10/64 dev eth0 nodad; ip -6 route add default via 2001:db8:2::1")
		box.serve("[::]:7")
		d.guest.serve("[::]:7")
		check{d.guest, "udp", "", "[2001:db8:2::10]:7", "2001:db8:1::10"}.run(t) // without us
		check{box, "tcp", "", "[2001:db8:1::10]:7", "2001:db8:2::10"}.run(t)
		apply(t, d.firewall, plan.InstallChains{})
		box.run("ip6tables-nft", "-t", "raw", "-A", "PREROUTING", "-s", "2001:db8:1::/64") // counts
		both(t, d.guest, "[2001:db8:2::10]:7", silence, silence)
		both(t, box, "[2001:db8:1::10]:7", prohibited, prohibited)
		if got := box.run("sh", "-c", "ip6tables-nft -t raw -nvxL PREROUTING | tail -1 | awk '{print $1}'"); strings.TrimSpace(got) != "0" {
			t.Errorf("%s packets of the guest's arrived", got)
		}
		// What isn't ours is routed.
		d.host.run("ip", "link", "set", "gway0", "group", "0")
		both(t, d.guest, "[2001:db8:2::10]:7", "2001:db8:1::10", "2001:db8:1::10")
		both(t, box, "[2001:db8:1::10]:7", "2001:db8:2::10", "2001:db8:2::10")
	})
}

func TestHostServices6(t *testing.T) {
	forDocks(t, func(t *testing.T, d *dock) {
		d.host.sh("ip link set %s nomaster; ip addr add 2001:db8:a::3/128 dev gway0 nodad; ip -6 route add 2001:db8:a::10 dev gway0", inner)
		d.guest.serve("[::]:7")
		d.host.serve("[::]:7")
		apply(t, d.firewall, plan.InstallChains{}, add(plan.SetLocal6, "2001:db8:a::/64,gway0"))
		if !d.guest.pings("2001:db8:a::3") {
			t.Error("no echo from the host")
		}
		both(t, d.guest, "[2001:db8:a::3]:7", refused, refused)
		both(t, d.host, "[2001:db8:a::10]:7", "2001:db8:a::3", "2001:db8:a::3")
		both(t, d.lan, "[2001:db8:a::2]:7", "2001:db8:a::1", "2001:db8:a::1") // not ours
		// host-access=all
		d.host.sh("ip link set gway0 group %d", plan.GroupBridge)
		both(t, d.guest, "[2001:db8:a::3]:7", "2001:db8:a::10", "2001:db8:a::10")
	})
}

// Without IPv6 in the kernel its programs aren't needed, and its chains left out.
func TestKernelWithoutIPv6(t *testing.T) {
	for _, program := range backends {
		t.Run(program, func(t *testing.T) {
			host := newNamespace(t, "host")
			host.enter() // the thread isn't used again: what is mounted here goes with it
			must(t, unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
			must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
			must(t, unix.Mount("none", "/proc/sys/net/ipv6", "tmpfs", 0, ""))
			f, err := New(Options{Program: fourOnly(t, program), RuntimeDir: t.TempDir()})
			must(t, err)
			defer f.Close()
			apply(t, f, plan.InstallChains{}, plan.SetForward{Spec: fullForward})
			if got := observe(t, f); !got.Chains || got.Forward != fullForward.Digest() || len(got.Sets) != len(plan.Sets()) {
				t.Errorf("problem %q, filter %q, sets %v", got.Problem, got.Forward, got.Sets)
			}
			if got := nftRuleset(host); strings.Contains(got, "table ip6") {
				t.Errorf("IPv6 rules:\n%s", got)
			}
			// IPv6 comes, and its programs are missing: that is said, and IPv4 goes on.
			must(t, unix.Unmount("/proc/sys/net/ipv6", 0))
			host.run(program, "-F")
			got := observe(t, f)
			if got.Chains || got.Problem != "chain GANGWAY-INPUT of table filter has other rules than ours" {
				t.Errorf("chains %v, problem %q", got.Chains, got.Problem)
			}
			want := `IPv6: cannot find program "` + filepath.Dir(f.ipv4.name) + `/ip6` // and so on
			if err := f.Apply(context.Background(), []plan.Op{plan.InstallChains{}})[0].Err; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error is %v", err)
			}
			if got := observe(t, f); got.Chains || !strings.HasPrefix(got.Problem, want) {
				t.Errorf("IPv4 isn't mended: %q", got.Problem)
			}
			f.Apply(context.Background(), []plan.Op{plan.RemoveFirewall{}})
			if got := host.run(program + "-save"); strings.Contains(got, "GANGWAY") {
				t.Errorf("left:\n%s", got)
			}
			if _, err := New(Options{Program: f.ipv4.name}); err == nil || !strings.Contains(err.Error(), "ip6tables") {
				t.Errorf("with IPv6 and without its programs: %v", err)
			}
		})
	}
}

// fourOnly makes a directory with the programs for IPv4 alone, and returns the first one's path.
func fourOnly(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for _, suffix := range []string{"", "-save", "-restore"} {
		path, err := exec.LookPath(program + suffix)
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(dir, program+suffix)))
	}
	return filepath.Join(dir, program)
}

// A table that ip6tables doesn't understand is a problem that leaves IPv4 working.
func TestIPv6TableOfNftables(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	host.enter()
	host.sh(`nft add table ip6 raw
		nft add chain ip6 raw others '{ type filter hook forward priority 5; }'
		nft add rule ip6 raw others meta mark and 7 vmap '{ 1 : drop }'`)
	f := remembering(t, "iptables-nft", t.TempDir())
	apply(t, f, plan.InstallChains{}) // a table that isn't used doesn't matter
	if got := observe(t, f); !got.Chains {
		t.Errorf("problem %q", got.Problem)
	}
	apply(t, f, plan.RemoveFirewall{})
	host.sh(`nft add table ip6 filter
		nft add chain ip6 filter others '{ type filter hook forward priority 5; }'
		nft add rule ip6 filter others meta mark and 7 vmap '{ 1 : drop }'`)
	before := nftRuleset(host)
	want := `IPv6: cannot read table "filter": it has nftables rules that iptables doesn't know`
	err := f.Apply(context.Background(), []plan.Op{plan.InstallChains{}})[0].Err
	if err == nil || err.Error() != want {
		t.Errorf("error is %v", err)
	}
	if got := observe(t, f); got.Chains || got.Problem != want {
		t.Errorf("problem %q", got.Problem)
	}
	if got := host.run("iptables-nft-save"); strings.Count(got, "GANGWAY-FORWARD") < 5 {
		t.Errorf("IPv4's rules:\n%s", got)
	}
	f.Apply(context.Background(), []plan.Op{plan.RemoveFirewall{}})
	if got := host.run("iptables-nft-save"); strings.Contains(got, "GANGWAY") {
		t.Errorf("left:\n%s", got)
	}
	host.sh("nft delete table ip6 filter; nft delete table ip6 raw")
	apply(t, f, plan.InstallChains{}, plan.RemoveFirewall{})
	if got := nftRuleset(host); got != "" {
		t.Errorf("left in the end, before %s:\n%s", before, got)
	}
}

func TestIPv6Program(t *testing.T) {
	for name, want := range map[string]string{
		"iptables":                        "ip6tables",
		"iptables-nft":                    "ip6tables-nft",
		"/opt/iptables/sbin/iptables":     "/opt/iptables/sbin/ip6tables",
		"/usr/sbin/xtables-nft/iptables":  "/usr/sbin/xtables-nft/ip6tables",
		"/usr/local/sbin/iptables-legacy": "/usr/local/sbin/ip6tables-legacy",
	} {
		if got := ipv6Program(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// The two families' backends may differ.
func TestMixedBackends(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	host.enter()
	dir := t.TempDir()
	for link, program := range map[string]string{"iptables": "iptables-nft", "ip6tables": "ip6tables-legacy"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath(program + suffix)
			must(t, err)
			// Which backend it is goes by the name that it is called by.
			script := "#!/bin/sh\nexec " + path + ` "$@"` + "\n"
			must(t, os.WriteFile(filepath.Join(dir, link+suffix), []byte(script), 0o755))
		}
	}
	f := remembering(t, filepath.Join(dir, "iptables"), t.TempDir())
	for round := range 2 {
		apply(t, f, plan.InstallChains{})
		if got := observe(t, f); !got.Chains {
			t.Errorf("round %d: problem %q", round, got.Problem)
		}
		if got := host.run("ip6tables-legacy-save"); !strings.Contains(got, "GANGWAY-INPUT") {
			t.Errorf("round %d: IPv6's rules:\n%s", round, got)
		}
		host.run("ip6tables-legacy", "-F") // of which nftables' generation says nothing
		if observe(t, f).Chains {
			t.Errorf("round %d: the flush wasn't seen", round)
		}
		apply(t, f, plan.RemoveFirewall{})
		if got := nftRuleset(host); got != "" {
			t.Errorf("round %d: left:\n%s", round, got)
		}
		if got := host.run("ip6tables-legacy-save"); strings.Contains(got, "GANGWAY") {
			t.Errorf("round %d: left:\n%s", round, got)
		}
	}
}
