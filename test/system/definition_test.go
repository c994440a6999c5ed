package system_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// TestBrokenDefinition has files that can't be used; their networks say which line is at fault, the others run.
func TestBrokenDefinition(t *testing.T) {
	t.Parallel()
	w := setUp(t, lab.Options{})
	w.waitUplinks()
	dir := filepath.Join(w.Dir(), "etc/gangway/networks")
	w.must(os.MkdirAll(dir, 0o755))
	for name, c := range map[string]struct{ text, line, names string }{
		"syntax":  {"autostart = true\nmtu = = 3\n", "line 2", "mtu"},
		"unknown": {"autostart = true\n\nipv4-methd = \"nat\"\n", "line 3", "ipv4-methd"},
		"type":    {"mtu = \"large\"\n", "line 1", "mtu"},
		"range":   {"# a comment\nmtu = 3\n", "line 2", "mtu"},
		"subnet":  {"ipv4-subnet = \"192.168.5.1/24\"\n", "line 1", "ipv4-subnet"},
		"twice":   {"mtu = 1500\nmtu = 1400\n", "line 2", "mtu"},
		"hosts":   {"[[dhcp-hosts]]\nmac = \"02:00:00:00:00:01\"\nhostname = \"a\"\n[[dhcp-hosts]]\nmac = \"zz\"\n", "line", "dhcp-hosts"},
		"prefix":  {"ipv6-prefix = \"fe80::/64\"\n", "line 1", "ipv6-prefix"},
	} {
		w.must(os.WriteFile(filepath.Join(dir, name+".toml"), []byte(c.text), 0o644))
		defer func() {
			path := root + "/network/" + netPath(name)
			if state := w.text(path, "State"); state != "failed" {
				t.Errorf("%s is %s", name, state)
			}
			reason := w.text(path, "StateReason")
			if !strings.Contains(reason, name+".toml") || !strings.Contains(reason, c.line) || !strings.Contains(reason, c.names) {
				t.Errorf("%s: %q, want file, %q and %q", name, reason, c.line, c.names)
			}
			if fault, _ := w.fault(w.bus, path, "Network.Start"); fault != "Failed" {
				t.Errorf("%s: Start says %q", name, fault)
			}
		}()
	}
	w.must(os.WriteFile(filepath.Join(dir, "good.toml"), []byte("bridge = \"gwayG\"\nipv4-subnet = \"192.168.55.0/24\"\n"), 0o644))
	w.must(os.WriteFile(filepath.Join(dir, "No Name.toml"), []byte("\n"), 0o644))
	w.waitProperty(w.network, "State", "active")
	w.waitProperty(root+"/network/good", "State", "active")
	g, _ := w.guest("one", root+"/network/good")
	w.reachesBy(g.Host, "b")
	if n := len(lines(w.run("ip", "-o", "link", "show", "type", "bridge"))); n != 2 {
		t.Errorf("%d bridges for two good networks", n)
	}
	// Mended and reloaded, it runs; and the good one's guest has noticed nothing.
	w.must(os.WriteFile(filepath.Join(dir, "range.toml"), []byte("mtu = 1300\n"), 0o644))
	w.reload()
	w.waitProperty(root+"/network/range", "State", "active")
	h, _ := w.guest("two", root+"/network/range")
	w.reachesBy(h.Host, "b")
	w.reachesBy(g.Host, "b")
	// Broken for the checks behind, which read what a new process says.
	w.must(os.WriteFile(filepath.Join(dir, "range.toml"), []byte("# a comment\nmtu = 3\n"), 0o644))
	w.reload()
	w.waitProperty(root+"/network/range", "State", "failed")
	w.reachesBy(g.Host, "b")
	// One that can't be used can still be deleted.
	w.call(root+"/network/prefix", "Network.Delete")
	w.must(os.WriteFile(filepath.Join(dir, "prefix.toml"), []byte("ipv6-prefix = \"fe80::/64\"\n"), 0o644))
	w.kill(unix.SIGKILL)
	w.must(w.Daemon().Activate(w.soon()))
}

// TestIdleExit has the daemon leave when it is of no use, come back when asked, and stay while a network runs.
func TestIdleExit(t *testing.T) {
	t.Parallel()
	w := setUp(t, lab.Options{GangwaydArgs: []string{"--idle-exit=1500ms"}})
	w.waitUplinks()
	w.waitIPv6()
	before := w.lookWhole() // without a single table of iptables'
	w.waitProperty(w.network, "State", "active")
	first, err := w.Daemon().PID(w.ctx)
	w.must(err)
	g, _ := w.guest("one", w.network)
	w.reachesBy(g.Host, "b")
	// Longer than the daemon would stay without a network: a flow of five seconds.
	begun := time.Now()
	p, err := g.ProbeFlow(w.ctx, lab.EchoIPv4, lab.ProbeOptions{})
	w.must(err)
	_, err = p.WaitSuccess(w.soon(), begun.Add(5*time.Second))
	w.must(err)
	p.Finish()
	if now, err := w.Daemon().PID(w.ctx); err != nil || now != first {
		t.Errorf("with a network active process %d became %d (%v)", first, now, err)
	}
	w.call(w.network, "Network.Stop")
	w.eventually("the daemon leaves", func() error {
		if owner := w.owner(); owner != "" {
			return os.ErrExist
		}
		return nil
	})
	w.must(g.Remove(w.soon()))
	if rules := before["nft -s list ruleset"]; rules != "" {
		t.Errorf("the laptop wasn't new:\n%s", rules)
	}
	if d := before.diff(w.lookWhole()); d != "" {
		t.Errorf("what an idle daemon leaves:\n%s", d)
	}
	// It comes back with a call, and what was stopped is still stopped.
	if state := w.text(w.network, "State"); state != "inactive" {
		t.Errorf("after its return the network is %s", state)
	}
	w.call(w.network, "Network.Start")
	w.waitProperty(w.network, "IPv4State", "nat")
	second, err := w.Daemon().PID(w.ctx)
	w.must(err)
	if second == first {
		t.Errorf("process %d never left", first)
	}
}
