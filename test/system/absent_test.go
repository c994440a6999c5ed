package system_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gangway/test/lab"
)

// TestNetworkManagerGone stops NetworkManager while guests are on line, has somebody switch uplinks by hand, and starts
// NetworkManager again.
func TestNetworkManagerGone(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{NMResolvConf: true})
	g, _ := w.guest("one", w.network)
	w.reachesBy(g.Host, "b")
	m := w.watch()
	p, err := g.ProbeSockets(w.ctx, lab.EchoIPv4, lab.ProbeOptions{Interval: 20 * time.Millisecond})
	w.must(err)
	w.must(w.NM.Stop(w.soon()))
	w.waitProperty(uplinkPath("eth0"), "Connection", "")
	_, err = p.WaitSuccess(w.soon(), time.Now())
	w.must(err)
	if r := p.Finish(); r.Lost() > 0 {
		t.Errorf("NetworkManager's end cost packets: %s", r)
	}
	w.waitProperty(w.network, "State", "active")
	w.resolves(g.Host, "b")

	// The picture is rtnetlink's, and the name servers are resolv.conf's.
	w.run("sh", "-c", "echo nameserver 192.168.10.1 >/etc/resolv.conf")
	w.run("ip", "route", "del", "default", "dev", "eth0")
	w.waitUplink(w.network, "wlan0")
	w.reachesBy(g.Host, "a")
	w.resolves(g.Host, "a")
	w.switched(m, 1, "eth0", "wlan0")
	// A dead carrier is left here, too.
	w.run("sh", "-c", "echo nameserver 10.20.0.1 >/etc/resolv.conf")
	w.run("ip", "route", "add", "default", "via", "10.20.0.1", "dev", "eth0", "metric", "50")
	w.reachesBy(g.Host, "b")
	w.must(w.Site("b").Unplug())
	w.reachesBy(g.Host, "a")
	w.must(w.Site("b").Plug())
	w.reachesBy(g.Host, "b")

	w.must(w.NM.Start(w.soon()))
	w.must(w.NM.WaitPrimary(w.soon(), "eth0"))
	w.waitProperty(uplinkPath("eth0"), "Connection", "eth0")
	w.reachesBy(g.Host, "b")
	w.resolves(g.Host, "b")
	m.agrees()
	w.noSpoofed()
}

// TestWithoutNetworkManager has none at the start; it comes later.
func TestWithoutNetworkManager(t *testing.T) {
	t.Parallel()
	w := setUp(t, lab.Options{NoNetworkManager: true})
	w.run("sh", "-c", "ip addr add 192.168.10.77/24 dev wlan0; ip route add default via 192.168.10.1 dev wlan0 metric 700; echo nameserver 192.168.10.1 >/etc/resolv.conf")
	w.waitProperty(w.network, "State", "active")
	w.waitUplink(w.network, "wlan0")
	g, _ := w.guest("one", w.network)
	w.reachesBy(g.Host, "a")
	w.resolves(g.Host, "a")
	if got, _ := w.get(w.network, "Nameservers").([]string); !slices.Equal(got, []string{"192.168.10.1"}) {
		t.Errorf("name servers are %v", got)
	}
	w.must(w.NM.Start(w.soon()))
	w.must(w.NM.WaitPrimary(w.soon(), "eth0"))
	w.waitUplink(w.network, "eth0")
	w.reachesBy(g.Host, "b")
	w.resolves(g.Host, "b")
	if devices, err := w.NM.Cli(w.ctx, "-t", "-f", "DEVICE,STATE", "device"); err != nil || !strings.Contains(devices, "gway0:unmanaged") {
		t.Errorf("NetworkManager's devices are %q (%v)", devices, err)
	}
	w.noSpoofed()
}
