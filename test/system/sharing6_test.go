package system_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// twoCables are two wired sites with radvd; b is preferred.
func twoCables() []lab.SiteOptions {
	sites := twoBridges()
	for i := range sites {
		sites[i].Bridge, sites[i].HeedCarrier = "", false
	}
	return sites
}

// hostState is what has to be the same on the shared bridge as on the interface before.
func (w *world) hostState(ifname string) string {
	w.t.Helper()
	var parts []string
	for _, line := range lines(w.run("sh", "-c", "ip -o addr show dev "+ifname+" scope global | sed 's/.*inet/inet/'; ip -o -6 addr show dev "+ifname+
		" scope link | sed 's/.*inet/inet/'; ip route show dev "+ifname+"; ip -6 route show default dev "+ifname+"; ip -o link show "+ifname+" | sed 's/.*link.ether \\([0-9a-f:]*\\).*/\\1/'")) {
		for _, f := range fleeting {
			line = f.pattern.ReplaceAllString(line, f.by)
		}
		line, _, _ = strings.Cut(line, "\\")
		line, _, _ = strings.Cut(line, " dynamic") // how an address came is not what it is
		line, _, _ = strings.Cut(line, " noprefixroute")
		line = strings.TrimSpace(strings.ReplaceAll(line, ifname, "IF"))
		if line != "" {
			parts = append(parts, line)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

// Sharing an Ethernet uplink makes it a bridge with the same MAC address, lease, addresses and routes; guests get IPv6 by
// it; unplugged it fails over; auto makes it what it was.
func TestSetSharing(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: twoCables(), NMConfDir: "../../data"})
	w.waitIPv6()
	g := w.attached("vm1", w.network)
	w.lease(g, netip.Prefix{})
	w.waitProperty(w.network, "IPv6State", "proxy")
	before := w.hostState("eth0")
	leaseBefore := w.reaches(w.Laptop)
	watch, err := g.WatchIPv6(w.ctx)
	w.must(err)
	host4, err := w.Laptop.ProbeSockets(w.ctx, lab.EchoIPv4, lab.ProbeOptions{Interval: 10 * time.Millisecond})
	w.must(err)
	host6, err := w.Laptop.ProbeSockets(w.ctx, lab.EchoIPv6, lab.ProbeOptions{Interval: 10 * time.Millisecond})
	w.must(err)
	for _, p := range []*lab.Probe{host4, host6} {
		_, err = p.WaitSuccess(w.soon(), time.Now())
		w.must(err)
	}
	begun := time.Now()
	w.call(uplinkPath("eth0"), "Uplink.SetSharing", "bridge")
	t.Logf("SetSharing took %v", time.Since(begun))
	for property, want := range map[string]string{"Sharing": "bridge", "SharedBridge": "gwb-eth0"} {
		for _, ifname := range []string{"eth0", "gwb-eth0"} {
			if got := w.text(uplinkPath(ifname), property); got != want {
				t.Errorf("%s of %s is %q, want %q", property, ifname, got, want)
			}
		}
	}
	if got := w.get(root, "PrimaryUplink"); got != uplinkPath("gwb-eth0") {
		t.Errorf("PrimaryUplink is %v", got)
	}
	w.waitProperty(w.network, "IPv6State", "bridge")
	_, _, err = watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	w.must(waitSeen(w, g, prefixB))
	for _, p := range []*lab.Probe{host4, host6} {
		_, err = p.WaitSuccess(w.soon(), time.Now())
		w.must(err)
	}
	t.Logf("the host was off line for %v by IPv4, %v by IPv6", host4.Finish().Blackout(begun), host6.Finish().Blackout(begun))
	if after := w.reaches(w.Laptop); after != leaseBefore {
		t.Errorf("the host was %s and is %s", leaseBefore, after)
	}
	w.eventually("the bridge is what the interface was", func() error {
		if after := w.hostState("gwb-eth0"); after != before {
			return fmt.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		return nil
	})
	w.call(uplinkPath("eth0"), "Uplink.SetSharing", "bridge") // again: nothing to do

	// It outlives the daemon and NetworkManager, and fails over with neither daemon nor profile of the user's.
	w.kill(unix.SIGKILL)
	w.must(w.NM.Restart(w.soon()))
	w.must(w.NM.WaitPrimary(w.soon(), "gwb-eth0"))
	pulled := time.Now()
	w.must(w.Site("b").Unplug())
	w.must(w.NM.WaitPrimary(w.soon(), "eth1"))
	t.Logf("unplugged, the host is on the other uplink after %v", time.Since(pulled))
	w.reachesBy(w.Laptop, "a")
	w.must(w.Daemon().Activate(w.soon()))
	_, err = watch.WaitNoRouter(w.soon(), w.router("b"))
	w.must(err)
	w.reachesBy(g.Host, "a")
	w.must(w.Site("b").Plug())
	w.must(w.NM.WaitPrimary(w.soon(), "gwb-eth0"))
	w.must(waitSeen(w, g, prefixB))
	if got := w.text(uplinkPath("gwb-eth0"), "Sharing"); got != "bridge" {
		t.Errorf("Sharing is %q after the restarts", got)
	}

	w.call(uplinkPath("gwb-eth0"), "Uplink.SetSharing", "auto")
	if got := w.text(uplinkPath("eth0"), "Sharing"); got != "auto" {
		t.Errorf("Sharing is %q", got)
	}
	if out, err := w.Laptop.Run(w.ctx, "ip", "link", "show", "gwb-eth0"); err == nil {
		t.Errorf("the bridge is still there: %s", out)
	}
	w.waitProperty(w.network, "IPv6State", "proxy")
	_, err = watch.WaitNoRouter(w.soon(), w.router("b"))
	w.must(err)
	w.eventually("the interface is what it was", func() error {
		if after := w.hostState("eth0"); after != before {
			return fmt.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		return nil
	})
	out, err := w.NM.Cli(w.ctx, "-t", "-f", "NAME", "connection", "show")
	w.must(err)
	if n := len(lines(out)); n > len(w.Sites)+1 { // and lo, where NetworkManager has it
		t.Errorf("profiles are left: %q", out)
	}
}

// What can't be shared says why, and nothing changes.
func TestSetSharingRefuses(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	w.openTunnel(func() {})
	w.run("sh", "-c", "ip addr add 10.99.0.2/24 dev tun0; ip link set tun0 up; ip route add default dev tun0 metric 10")
	w.waitUplink(w.network, "tun0")
	before := w.objects()
	name, message := w.fault(w.bus, uplinkPath("tun0"), "Uplink.SetSharing", "bridge")
	if name != "NotSupported" || !strings.Contains(message, "tun0") {
		t.Errorf("sharing a VPN: %s %q", name, message)
	}
	if name, _ := w.fault(w.bus, uplinkPath("tun0"), "Uplink.SetSharing", "never"); name != "NotSupported" {
		t.Errorf("a VPN without a connection: %s", name)
	}
	if name, _ := w.fault(w.bus, uplinkPath("eth0"), "Uplink.SetSharing", "sometimes"); name != "InvalidSetting" {
		t.Errorf("an unknown mode: %s", name)
	}
	w.eventually("nothing changed", func() error { return difference(w.objects(), before) })
}
