package system_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// settled is the picture when it is the same twice running and the daemon has nothing to do.
func (w *world) settled() picture {
	w.t.Helper()
	var p picture
	w.eventually("the picture is at rest", func() error {
		if plan := w.dryRun(); plan != "" {
			return fmt.Errorf("left to do: %s", plan)
		}
		last := p
		p = w.look()
		if strings.Contains(p["ip -6 addr show"], "tentative") {
			return errors.New("an address is being checked for duplicates")
		}
		if d := last.diff(p); last == nil || d != "" {
			return fmt.Errorf("it changes: %s", d)
		}
		return nil
	})
	return p
}

// dryRun returns what a new daemon would do now, "" for nothing, but for what it does at its first look in any case:
// nobody can tell from outside whether flows were left that a daemon before it would have ended, or guests untold.
func (w *world) dryRun() string {
	w.t.Helper()
	out, err := w.Laptop.Run(w.ctx, daemonBinary, "--dry-run")
	w.must(err)
	return strings.Join(slices.DeleteFunc(lines(out), func(line string) bool {
		return strings.HasSuffix(line, ": first look") || strings.HasPrefix(line, "announce ")
	}), "; ")
}

// kill sends the signal to gangwayd if it runs, and waits for its end.
func (w *world) kill(sig unix.Signal) {
	w.t.Helper()
	err := w.Daemon().Kill(w.soon(), sig)
	var e godbus.Error
	if errors.As(err, &e) && e.Name == "org.freedesktop.DBus.Error.NameHasNoOwner" {
		return
	}
	w.must(err)
}

// busy makes a laptop with two networks and a guest on each.
func busy(t *testing.T) (w *world, g, h *lab.Guest, other godbus.ObjectPath) {
	t.Helper()
	w = start(t, lab.Options{})
	g, _ = w.guest("one", w.network)
	other = w.create("other", dict("isolate-ports", true, "dhcp-hosts", []options{dict("mac", "02:00:00:00:00:99", "address", "192.168.200.9")}, "ipv4-subnet", "192.168.200.0/24"))
	h, _ = w.guest("two", other)
	w.reachesBy(g.Host, "b")
	w.reachesBy(h.Host, "b")
	w.waitIPv6()
	return w, g, h, other
}

func TestKilledAtRest(t *testing.T) {
	t.Parallel()
	w, g, _, _ := busy(t)
	flow, err := g.ProbeFlow(w.ctx, lab.EchoIPv4, lab.ProbeOptions{})
	w.must(err)
	before, servers, objects := w.settled(), w.processes("dnsmasq"), w.objects()
	if len(servers) != 2 {
		t.Fatalf("dnsmasq: %v", servers)
	}
	for _, how := range []string{"KILL", "HUP", "KILL"} {
		if how == "KILL" {
			w.kill(unix.SIGKILL)
			if d := before.diff(w.look()); d != "" {
				t.Errorf("the kernel lost something with the daemon:\n%s", d)
			}
			w.must(w.Daemon().Activate(w.soon()))
		} else {
			w.reload()
		}
		w.eventually("the objects are as before "+how, func() error { return difference(objects, w.objects()) })
		if d := before.diff(w.settled()); d != "" {
			t.Errorf("after %s and a new start:\n%s", how, d)
		}
		if now := w.processes("dnsmasq"); !slices.Equal(now, servers) {
			t.Errorf("dnsmasq after %s: %v, was %v", how, now, servers)
		}
	}
	if n := len(w.processes("gangwayd")); n != 1 {
		t.Errorf("%d daemons", n)
	}
	if r := flow.Finish(); r.Lost() > 0 {
		t.Errorf("the guest's flow lost packets over the deaths: %s", r)
	}
	if n := strings.Count(w.log(), "level=INFO msg=plan"); n == 0 {
		t.Error("no plan was ever logged: is the log the daemon's?")
	}
}

// reload sends SIGHUP and waits until the new program has the name; the process is the same.
func (w *world) reload() {
	w.t.Helper()
	pid, err := w.Daemon().PID(w.ctx)
	w.must(err)
	owner := w.owner()
	w.must(unix.Kill(pid, unix.SIGHUP))
	w.eventually("the daemon is back", func() error {
		if now := w.owner(); now == "" || now == owner {
			return fmt.Errorf("the owner is %q", now)
		}
		return nil
	})
	if now, err := w.Daemon().PID(w.ctx); err != nil || now != pid {
		w.t.Errorf("SIGHUP made process %d of %d (%v)", now, pid, err)
	}
}

// owner is the connection that has the daemon's name, "" if none; unlike a call it activates nothing.
func (w *world) owner() string {
	var name string
	if err := w.bus.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, busName).Store(&name); err != nil {
		return ""
	}
	return name
}

// TestKilledAtWork kills the daemon at random moments while it switches, creates, deletes and renumbers, and has a
// new one end what was begun.
func TestKilledAtWork(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w, g, h, other := busy(t)
	for round, work := range []func() string{
		func() string { w.must(w.Site("b").Unplug()); return "a" },
		func() string { w.must(w.Site("b").Plug()); return "b" },
		func() string { w.send(root, "Manager.CreateNetwork", "third", options{}); return "b" },
		func() string {
			w.send(w.network, "Network.Update", dict("ipv4-subnet", "192.168.222.0/24"))
			return "b"
		},
		func() string { w.send(root+"/network/third", "Network.Delete"); return "b" },
		func() string { w.send(other, "Network.Stop"); return "b" },
		func() string { w.send(other, "Network.Start"); return "b" },
		func() string {
			w.send(w.network, "Network.Update", dict("ipv4-subnet", "auto", "mtu", uint32(1400)))
			return "b"
		},
	} {
		site := work()
		// Anywhere within a pass: NetworkManager and the hold-down take their time for a switch, commands don't.
		limit := 60
		if round < 2 {
			limit = 800
		}
		<-time.After(time.Duration(random.IntN(limit*1000)) * time.Microsecond)
		w.kill(unix.SIGKILL)
		w.must(w.Daemon().Activate(w.soon()))
		w.reachesBy(g.Host, site)
		w.settled()
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	// Whatever was cut short, all can be done again, and nothing is there twice.
	w.call(other, "Network.Start")
	w.reachesBy(h.Host, "b")
	w.call(w.network, "Network.Update", dict("mtu", uint32(0), "ipv4-subnet", "auto"))
	for _, name := range []string{"third", "fourth"} {
		w.fault(w.bus, root, "Manager.CreateNetwork", name, options{})
		w.call(root+"/network/"+godbus.ObjectPath(name), "Network.Delete")
	}
	w.settled()
	if n := len(w.processes("dnsmasq")); n != 2 {
		t.Errorf("%d dnsmasq for two networks", n)
	}
	var ours []string
	for _, line := range lines(w.run("ip", "-o", "link", "show", "type", "bridge")) {
		ours = append(ours, strings.Fields(line)[1])
	}
	if len(ours) != 2 {
		t.Errorf("bridges: %v", ours)
	}
	for _, rule := range []string{"21100", "21200"} {
		if n := strings.Count(w.run("ip", "-4", "rule"), rule+":"); n != 2 {
			t.Errorf("%d rules of priority %s for two networks", n, rule)
		}
	}
	for _, chain := range []string{"-A FORWARD -j GANGWAY-FORWARD", "-A INPUT -j GANGWAY-INPUT"} {
		if n := strings.Count(w.run("iptables-save", "-t", "filter"), chain+"\n"); n != 1 {
			t.Errorf("%q is there %d times", chain, n)
		}
	}
	w.noSpoofed()
}

// send makes a call and doesn't wait for the answer.
func (w *world) send(path godbus.ObjectPath, member string, args ...any) {
	w.bus.Object(busName, path).Go(busName+"."+member, 0, make(chan *godbus.Call, 1), args...)
}

// TestStoppedIsAsBefore has SIGTERM leave the machine as it was before the daemon's first start: one whose packet filter
// others use, and one where nobody ever did, so that not even a table was there.
func TestStoppedIsAsBefore(t *testing.T) {
	for name, prepare := range map[string]func(*world){
		"others' rules": (*world).othersRules,
		"no tables": func(w *world) {
			if rules := w.run("nft", "list", "ruleset"); strings.TrimSpace(rules) != "" {
				w.t.Fatalf("the laptop isn't new:\n%s", rules)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { stoppedIsAsBefore(t, prepare) })
	}
}

func stoppedIsAsBefore(t *testing.T, prepare func(*world)) {
	t.Parallel()
	w := setUp(t, lab.Options{Sysctl: map[string]string{"net.ipv4.ip_forward": "0", "net.ipv4.conf.all.rp_filter": "1", "net.ipv4.conf.default.rp_filter": "1"}})
	w.waitUplinks()
	w.waitIPv6()
	prepare(w)
	// A port exists before and after; only its being a port is ours.
	g, err := w.AddGuest(w.ctx, "one")
	w.must(err)
	w.run("ip", "link", "set", g.Port, "up")
	_, err = w.Laptop.WaitAddress(w.soon(), g.Port, netip.MustParsePrefix("fe80::/10"))
	w.must(err)
	before := w.lookWhole()
	for round := range 2 {
		w.waitProperty(w.network, "State", "active")
		if round == 0 {
			w.call(w.network, "Network.Attach", g.Port, options{})
			w.create("other", dict("uplink", "wlan0"))
		}
		w.lease(g, w.subnet(w.network))
		w.reachesBy(g.Host, "b")
		w.kill(unix.SIGTERM)
		w.must(g.StopDHCP(w.soon()))
		if d := before.diff(w.lookWhole()); d != "" {
			t.Errorf("after stop %s:\n%s", strconv.Itoa(round), d)
		}
	}
}

// othersRules adds rules of somebody else's, and with them each table and base chain that ours need, too.
func (w *world) othersRules() {
	for table, chain := range map[string]string{"filter": "FORWARD", "nat": "POSTROUTING", "mangle": "FORWARD"} {
		w.run("iptables", "-t", table, "-A", chain, "-o", "virbr0", "-m", "comment", "--comment", "somebody else's", "-j", "RETURN")
		w.run("iptables", "-t", table, "-L", "-n") // makes the other chains
	}
	w.run("iptables", "-A", "INPUT", "-i", "virbr0", "-j", "ACCEPT")
	w.run("iptables", "-t", "mangle", "-A", "POSTROUTING", "-o", "virbr0", "-j", "RETURN")
}
