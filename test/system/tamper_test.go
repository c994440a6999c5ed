package system_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// TestTampering has somebody break each thing that guests need; the daemon, which isn't told, mends it.
func TestTampering(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	g, l := w.guest("one", w.network)
	w.reachesBy(g.Host, "b")
	w.waitIPv6()
	before := w.settled()
	for _, c := range []struct {
		name   string
		breaks string
		// differs says why the picture isn't quite the one of before, "" if it has to be
		differs string
	}{
		{"filter rules flushed", "iptables -F", ""},
		{"translation flushed", "iptables -t nat -F", ""},
		{"all flushed and our chains deleted", "iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X; iptables -t mangle -F; iptables -t mangle -X", ""},
		{"jump deleted", "iptables -D FORWARD -j GANGWAY-FORWARD", ""},
		{"a rule of ours deleted", "iptables -t nat -D GANGWAY-POSTROUTING 1", ""},
		{"a rule added to our chain", "iptables -I GANGWAY-FORWARD -j DROP", ""},
		{"our jump no longer first", "iptables -I FORWARD -j DROP", "somebody's DROP stays"},
		{"ruleset flushed", "nft flush ruleset", ""},
		// The kernel tells nobody about sets: it is mended with whatever happens next.
		{"set emptied", "ipset flush gangway-out; ip link add x0 type bridge; ip link del x0", ""},
		{"rule deleted", "ip rule del pref 21200", ""},
		{"rules deleted", "ip rule del pref 21100; ip rule del pref 21200", ""},
		{"default route deleted", "ip route del default table 26450", ""},
		{"table flushed", "ip route flush table 26450", ""},
		{"bridge down", "ip link set gway0 down", ""},
		{"address deleted", "ip addr del 192.168.231.1/24 dev gway0", ""},
		{"all addresses deleted", "ip addr flush dev gway0 scope global", ""},
		{"port taken out", "ip link set port-one nomaster", ""},
		{"group changed", "ip link set gway0 group 0", ""},
		{"forwarding off everywhere", "sysctl -qw net.ipv4.ip_forward=1; sysctl -qw net.ipv4.ip_forward=0", "ip_forward is somebody's"},
		{"forwarding off on the uplink", "sysctl -qw net.ipv4.conf.eth0.forwarding=0", ""},
		{"bridge deleted", "ip link del gway0", "a new bridge has another index"},
	} {
		w.run("sh", "-c", c.breaks)
		w.eventually(c.name+": mended", func() error {
			if plan := w.dryRun(); plan != "" {
				return fmt.Errorf("left to do: %s", plan)
			}
			return nil
		})
		w.reachesBy(g.Host, "b")
		w.resolves(g.Host, "b")
		w.eventually(c.name+": the network says so", func() error {
			if state := w.text(w.network, "State"); state != "active" {
				return fmt.Errorf("it is %s: %s", state, w.reasons(w.network))
			}
			return nil
		})
		if d := before.diff(w.settled()); d != "" && c.differs == "" {
			t.Errorf("%s, and not mended wholly:\n%s", c.name, d)
		}
		if strings.HasPrefix(c.breaks, "iptables -I FORWARD") {
			w.run("iptables", "-D", "FORWARD", "-j", "DROP")
		}
	}
	// dnsmasq: a new one serves the same lease.
	for _, p := range w.processes("dnsmasq") {
		w.run("kill", "-KILL", strings.Fields(p)[0])
	}
	w.eventually("there is a new dnsmasq", func() error {
		if n := len(w.processes("dnsmasq")); n != 1 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	w.resolves(g.Host, "b")
	w.must(g.Renew(w.soon()))
	again, err := g.WaitLease(w.soon(), w.subnet(w.network))
	w.must(err)
	if again.Address != l.Address {
		t.Errorf("the lease was %s and is %s", l.Address, again.Address)
	}
	w.noSpoofed()
	w.kill(unix.SIGTERM)
}

// TestBesideDocker has another firewall drop what it doesn't know, and send bridged frames through FORWARD, before the
// daemon's start and after.
func TestBesideDocker(t *testing.T) {
	t.Parallel()
	docker := func(w *world) {
		w.run("sh", "-c", "sysctl -qw net.bridge.bridge-nf-call-iptables=1; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -P FORWARD DROP; iptables -I FORWARD -j DOCKER-USER")
	}
	for _, first := range []string{"docker", "gangway"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			w := setUp(t, lab.Options{})
			w.waitUplinks()
			if first == "docker" {
				docker(w)
			}
			w.waitProperty(w.network, "State", "active")
			g, _ := w.guest("one", w.network)
			h, lh := w.guest("two", w.network)
			w.reachesBy(g.Host, "b")
			if first == "gangway" {
				docker(w)
			}
			w.settled()
			w.reachesBy(g.Host, "b")
			w.reachesBy(h.Host, "b")
			w.eventually("guests of one network reach each other", func() error { return w.pings(g.Host, lh.Address.Addr()) })
			// What isn't ours is still dropped.
			stranger := w.strangerBridge()
			w.cannotReach(stranger.Host, lab.EchoIPv4)
			w.noSpoofed()
		})
	}
}

// strangerBridge makes a guest on a bridge that somebody else routes for.
func (w *world) strangerBridge() *lab.Guest {
	w.t.Helper()
	g, err := w.AddGuest(w.ctx, "stranger")
	w.must(err)
	w.run("sh", "-c", "ip link add br9 type bridge; ip addr add 172.31.9.1/24 dev br9; ip link set br9 up; sysctl -qw net.ipv4.conf.br9.forwarding=1")
	w.must(g.AttachTo("br9"))
	_, err = g.Run(w.ctx, "sh", "-c", "ip addr add 172.31.9.2/24 dev eth0; ip route add default via 172.31.9.1")
	w.must(err)
	w.eventually("the stranger reaches its host", func() error { return w.pings(g.Host, netip.MustParseAddr("172.31.9.1")) })
	return g
}
