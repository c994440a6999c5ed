package system_test

import (
	"net/netip"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// tunnel is a TUN device of the laptop whose other end is the test. It swallows packets and counts them.
type tunnel struct {
	file *os.File

	mu      sync.Mutex
	sources map[netip.Addr]int
}

var tunAddress = netip.MustParsePrefix("10.99.0.2/24")

// openTunnel makes tun0, which has what prepare gives it.
func (w *world) openTunnel(prepare func()) *tunnel {
	w.t.Helper()
	tn := &tunnel{sources: map[netip.Addr]int{}}
	prepare()
	w.must(w.Laptop.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		tn.file = os.NewFile(uintptr(fd), "tun0")
		return nil
	}))
	w.t.Cleanup(func() { tn.file.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			n, err := tn.file.Read(buf)
			if err != nil {
				return
			}
			if n >= 20 && buf[0]>>4 == 4 {
				tn.mu.Lock()
				tn.sources[netip.AddrFrom4([4]byte(buf[12:16]))]++
				tn.mu.Unlock()
			}
		}
	}()
	return tn
}

// from counts the IPv4 packets of a source.
func (tn *tunnel) from(a netip.Addr) int {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	return tn.sources[a]
}

// TestVPN has a program lay a tunnel over everything. What follows goes in there alone, what bypasses goes past,
// what blocks goes nowhere; and without the tunnel all is as before.
func TestVPN(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	follow, _ := w.guest("follow", w.network)
	bypassNet, blockNet := w.create("bypass", dict("vpn", "bypass")), w.create("block", dict("vpn", "block"))
	bypass, _ := w.guest("bypass", bypassNet)
	block, _ := w.guest("block", blockNet)
	for _, g := range w.guests {
		w.reachesBy(g.Host, "b")
	}
	tn := w.openTunnel(func() {})
	w.run("ip", "addr", "add", tunAddress.String(), "dev", "tun0")
	w.run("ip", "link", "set", "tun0", "up")
	for _, half := range []string{"0.0.0.0/1", "128.0.0.0/1"} {
		w.run("ip", "route", "add", half, "dev", "tun0")
	}
	w.waitUplink(w.network, "tun0")
	w.waitUplink(bypassNet, "eth0")
	w.waitUplink(blockNet, "")
	w.waitProperty(blockNet, "IPv4State", "offline")
	w.waitProperty(uplinkPath("tun0"), "Kind", "vpn")
	w.waitProperty(root, "PrimaryUplink", uplinkPath("tun0"))

	captures := map[string]*lab.Capture{}
	for _, s := range w.Sites {
		c, err := w.Laptop.Capture(w.ctx, s.Uplink)
		w.must(err)
		captures[s.Uplink] = c
	}
	echo := func(f lab.Frame) bool { return f.DstIP() == lab.InternetIPv4 }
	w.cannotReach(follow.Host, lab.EchoIPv4) // the tunnel's end doesn't answer
	w.refusedAtOnce(block)
	for ifname, c := range captures {
		if n := c.Count(echo); n > 0 {
			t.Errorf("%d packets of those who follow the VPN left by %s", n, ifname)
		}
	}
	if tn.from(tunAddress.Addr()) == 0 {
		t.Error("nothing went into the tunnel translated")
	}
	w.reachesBy(bypass.Host, "b")
	if _, err := captures["eth0"].Wait(w.soon(), echo); err != nil {
		t.Error("the capture on eth0 sees nothing at all:", err)
	}
	for _, n := range []string{"default", "bypass", "block"} {
		subnet := w.subnet(root + "/network/" + netPath(n))
		for ifname, c := range captures {
			if n := c.Count(lab.SrcIn(subnet)); n > 0 {
				t.Errorf("%d packets of %s on %s untranslated", n, subnet, ifname)
			}
		}
	}
	// Update live, both ways.
	w.call(bypassNet, "Network.Update", dict("vpn", "block"))
	w.refusedAtOnce(bypass)
	w.call(blockNet, "Network.Update", dict("vpn", "bypass"))
	w.reachesBy(block.Host, "b")

	w.must(tn.file.Close())
	for _, g := range w.guests {
		w.reachesBy(g.Host, "b")
	}
	w.waitProperty(root, "PrimaryUplink", uplinkPath("eth0"))
	w.noSpoofed()
}

// TestVPNOfNetworkManager is the same with a tunnel that NetworkManager manages and makes the default.
func TestVPNOfNetworkManager(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{NMManaged: []string{"tun0"}})
	g, _ := w.guest("one", w.network)
	passer, _ := w.guest("two", w.create("bypass", dict("vpn", "bypass")))
	w.reachesBy(g.Host, "b")
	_, err := w.NM.Cli(w.soon(), "connection", "add", "type", "tun", "ifname", "tun0", "con-name", "vpn", "mode", "tun", "autoconnect", "no",
		"ipv4.method", "manual", "ipv4.addresses", tunAddress.String(), "ipv4.gateway", "10.99.0.1", "ipv4.route-metric", "10", "ipv4.dns", "10.99.0.1", "ipv6.method", "disabled")
	w.must(err)
	tn := w.openTunnel(func() {
		_, err = w.NM.Cli(w.soon(), "connection", "up", "vpn")
		w.must(err)
	})
	w.waitUplink(w.network, "tun0")
	w.eventually("the guest's packets go into the tunnel", func() error {
		w.cannotReach(g.Host, lab.EchoIPv4)
		if tn.from(tunAddress.Addr()) == 0 {
			return os.ErrNotExist
		}
		return nil
	})
	w.reachesBy(passer.Host, "b")
	_, err = w.NM.Cli(w.soon(), "connection", "down", "vpn")
	w.must(err)
	w.reachesBy(g.Host, "b")
	w.noSpoofed()
}
