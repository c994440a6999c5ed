package system_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// forgetful has what a neighbour knows doubted after a second at most instead of half a minute (RFC 4861 6.3.2).
var forgetful = lab.MachineOptions{Sysctl: map[string]string{"net.ipv6.neigh.eth0.base_reachable_time_ms": "700", "net.ipv6.neigh.eth0.delay_first_probe_time": "1"}}

// impatient makes the site's router forgetful, too.
func (w *world) impatient(site string) {
	w.t.Helper()
	r := w.Site(site).IPv6Router()
	for key, value := range map[string]string{"base_reachable_time_ms": "700", "delay_first_probe_time": "1"} {
		w.must(r.Sysctl("net.ipv6.neigh."+r.Interface+"."+key, value))
	}
}

// pass lets time pass, or the test's end come.
func (w *world) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.ctx.Done():
	}
}

// served is settled for networks whose bridge is their router: a new daemon would have to begin to serve them, as it can't be seen from
// outside that the running one does.
func (w *world) served() picture {
	w.t.Helper()
	var p picture
	w.eventually("the picture is at rest", func() error {
		for _, left := range strings.Split(w.dryRun(), "; ") {
			if left != "" && !strings.HasPrefix(left, "serve ") {
				return fmt.Errorf("left to do: %s", left)
			}
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

// A dead daemon: guests are reached, and reach everything, for longer than neighbours go by what they know; the next takes over without
// a packet being lost, and one that is told to begin anew, too.
func TestProxiedByTheDead(t *testing.T) {
	t.Parallel()
	w := onWiFi(t, lab.Options{})
	w.impatient("a")
	st, stA := w.station("a", "lan", prefixA, forgetful)
	g, addr := w.guestWith("vm1", "default", prefixA, forgetful)
	w.known(addr)
	slow := lab.ProbeOptions{Interval: 100 * time.Millisecond, Timeout: 2 * time.Second}
	var probes []*lab.Probe
	for _, begin := range []func() (*lab.Probe, error){
		func() (*lab.Probe, error) { return st.ProbePing(w.ctx, addr, slow) },
		func() (*lab.Probe, error) { return g.ProbeFlow(w.ctx, st.Echo(stA), slow) },
		func() (*lab.Probe, error) { return g.ProbeFlow(w.ctx, lab.EchoIPv6, slow) },
		func() (*lab.Probe, error) { return w.Laptop.ProbePing(w.ctx, addr, slow) },
	} {
		p, err := begin()
		w.must(err)
		_, err = p.WaitSuccess(w.soon(), time.Now())
		w.must(err)
		probes = append(probes, p)
	}
	before, beforeDeath := w.served(), time.Now()
	w.kill(unix.SIGKILL)
	if d := before.diff(w.look()); d != "" {
		t.Errorf("the kernel lost something with the daemon:\n%s", d)
	}
	w.pass(8 * time.Second) // four times and more what a neighbour takes to doubt, and to give up
	// Who never asked before is answered, too.
	fresh, _ := w.station("a", "new", prefixA, lab.MachineOptions{})
	w.pingable(fresh.Host, addr)
	if w.owner() != "" {
		t.Fatal("the daemon is alive")
	}
	w.must(w.Daemon().Activate(w.soon()))
	if d := before.diff(w.served()); d != "" {
		t.Errorf("after a death and a new start:\n%s", d)
	}
	w.reload()
	if d := before.diff(w.served()); d != "" {
		t.Errorf("after SIGHUP:\n%s", d)
	}
	for i, p := range probes {
		_, err := p.WaitSuccess(w.soon(), time.Now())
		w.must(err)
		if r := p.Finish(); r.LostAfter(beforeDeath) > 0 {
			t.Errorf("probe %d lost %d packets over the deaths: %s", i, r.LostAfter(beforeDeath), r)
		}
	}
	w.noViolations("a")
}

// A daemon that is killed at whatever moment of a move between proxied links is followed by one that finishes it.
func TestKilledWhileMovingProxied(t *testing.T) {
	t.Parallel()
	w := onWiFi(t, lab.Options{Sites: wifiAndDesk()})
	w.impatient("a")
	w.impatient("b")
	g, watch, _ := w.guest6("vm1", prefixB)
	self := w.self()
	for i, delay := range []time.Duration{300, 4, 310, 12, 330} {
		from, to, act := prefixB, prefixA, w.Site("b").Unplug
		if i%2 == 1 {
			from, to, act = prefixA, prefixB, w.Site("b").Plug
		}
		begun := time.Now()
		w.must(act())
		w.pass(delay * time.Millisecond) // somewhere in the middle: which moment doesn't matter
		w.must(w.Daemon().Kill(w.soon(), unix.SIGKILL))
		w.must(w.Daemon().Activate(w.soon()))
		_, _, err := watch.WaitAddress(w.soon(), to)
		w.must(err)
		_, err = watch.WaitNoAddress(w.soon(), from)
		w.must(err)
		_, err = watch.WaitRouter(w.soon(), self)
		w.must(err)
		w.must(waitSeen(w, g, to))
		t.Logf("killed %v after the move began: over after %v", delay*time.Millisecond, time.Since(begun))
	}
	w.noViolations("a")
}

// hostIPv6 is what the host has of IPv6 by itself: addresses, routes and rules that aren't ours.
func (w *world) hostIPv6() string {
	w.t.Helper()
	var own []string
	for _, line := range lines(w.run("sh", "-c", "ip -o -6 addr show | sed 's/valid_lft.*//'; ip -6 route show | grep -v 'proto 147'; ip -6 rule show | grep -v 'proto 147'")) {
		for _, f := range fleeting {
			line = f.pattern.ReplaceAllString(line, f.by)
		}
		if !strings.Contains(line, "gway") && !strings.Contains(line, "port-") { // the cables of guests are theirs
			own = append(own, line)
		}
	}
	return strings.Join(own, "\n")
}

// atRest is the whole picture when it is the same twice running, and no address is being checked.
func (w *world) atRest() picture {
	w.t.Helper()
	var p picture
	w.eventually("the laptop is at rest", func() error {
		last := p
		p = w.lookWhole()
		if d := last.diff(p); last == nil || d != "" || strings.Contains(p["ip -6 addr show"], "tentative") {
			return errors.New(d)
		}
		return nil
	})
	return p
}

// Stop takes everything away, and the host's IPv6 is what it was, before, during and after.
func TestProxiedLeavesNothing(t *testing.T) {
	t.Parallel()
	w := setUp(t, lab.Options{Sites: wifiAndDesk()})
	w.waitUplinks()
	w.waitIPv6()
	before, hostBefore := w.atRest(), w.hostIPv6()
	w.must(w.Daemon().Activate(w.soon()))
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, addrB := w.guest6("vm1", prefixB)
	w.must(waitSeen(w, g, prefixB))
	w.known(addrB)
	if during := w.hostIPv6(); during != hostBefore {
		t.Errorf("the host's IPv6 was\n%s\nand is\n%s", hostBefore, during)
	}
	// By the other link, too, so that what is borrowed there goes back as well.
	w.must(w.Site("b").Unplug())
	addrA, _, err := watch.WaitAddress(w.soon(), prefixA)
	w.must(err)
	w.known(addrA)
	w.must(w.Site("b").Plug())
	_, _, err = watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	w.must(waitSeen(w, g, prefixB))
	w.kill(unix.SIGTERM)
	_, err = watch.WaitNoRouter(w.soon(), netip.Addr{}) // no guest is left on a route into nothing
	w.must(err)
	_, err = watch.WaitNoAddress(w.soon(), prefixB)
	w.must(err)
	w.must(g.Remove(w.soon()))
	w.eventually("the laptop is as it was", func() error {
		if d := before.diff(w.lookWhole()); d != "" {
			return errors.New(d)
		}
		if now := w.hostIPv6(); now != hostBefore {
			return fmt.Errorf("the host's IPv6 was\n%s\nand is\n%s", hostBefore, now)
		}
		if left := w.run("ip", "-6", "neigh", "show", "proxy"); left != "" {
			return fmt.Errorf("the host still answers for %s", left)
		}
		return nil
	})
	w.noViolations("a")
}
