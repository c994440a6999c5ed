package system_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

const (
	busName   = "org.gangway.Gangway1"
	ourErrors = busName + ".Error."
	root      = godbus.ObjectPath("/org/gangway/Gangway1")

	// patience bounds every wait for something that must happen, on the slowest machine.
	patience = 30 * time.Second
)

// daemonBinary is gangwayd, built once for all tests.
var daemonBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gangway-system-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	daemonBinary = filepath.Join(dir, "gangwayd")
	args := []string{"build", "-o", daemonBinary}
	if os.Getenv("GOCOVERDIR") != "" {
		args = append(args, "-cover", "-coverpkg=gangway/...")
	}
	build := exec.Command("go", append(args, "gangway/cmd/gangwayd")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build gangwayd: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// world is a laptop with gangwayd, as a client and as guests see it.
type world struct {
	*lab.Lab
	t       *testing.T
	ctx     context.Context
	bus     *godbus.Conn
	network godbus.ObjectPath // the default network
	guests  []*lab.Guest
}

// setUp raises a laptop on whose bus gangwayd can be activated, but isn't yet.
func setUp(t *testing.T, o lab.Options) *world {
	t.Helper()
	o.Gangwayd, o.BusPolicyDir, o.PolkitActionDir = daemonBinary, "../../data", "../../data"
	o.NMUnmanaged = cmp.Or(o.NMUnmanaged, "interface-name:gway*")
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	w := &world{Lab: lab.Start(t, o), t: t, ctx: ctx, network: root + "/network/default"}
	var err error
	if w.bus, err = w.Bus(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.bus.Close() })
	return w
}

// start is setUp, every plugged-in uplink configured, and the default network active.
func start(t *testing.T, o lab.Options) *world {
	t.Helper()
	w := setUp(t, o)
	if !o.NoNetworkManager {
		w.waitUplinks()
	}
	w.waitProperty(w.network, "State", "active")
	return w
}

// waitUplinks waits until NetworkManager has done with every uplink that has carrier.
func (w *world) waitUplinks() {
	w.t.Helper()
	for _, s := range w.Sites {
		if s.Options.Unplugged {
			continue
		}
		w.waitActivated(s.Uplink)
	}
	if want := w.Expected(); want != "" {
		w.must(w.NM.WaitPrimary(w.soon(), want))
	}
}

// waitIPv6 waits until the uplinks' IPv6 is complete, which takes longer than IPv4.
func (w *world) waitIPv6() {
	w.t.Helper()
	for _, s := range w.Sites {
		_, _, err := s.WaitUplink(w.soon())
		w.must(err)
		_, err = w.Laptop.WaitAddress(w.soon(), s.Uplink, netip.MustParsePrefix("fe80::/10"))
		w.must(err)
	}
	w.eventually("IPv6 has default routes", func() error {
		if n := len(lines(w.run("ip", "-6", "route", "show", "default"))); n < len(w.Sites) {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
}

func (w *world) waitActivated(ifname string) {
	w.t.Helper()
	w.eventually(ifname+" is activated", func() error {
		state, err := w.NM.Cli(w.ctx, "-g", "GENERAL.STATE", "device", "show", ifname)
		if err == nil && !strings.HasPrefix(state, "100") {
			err = fmt.Errorf("its state is %q", strings.TrimSpace(state))
		}
		return err
	})
}

// soon is a context that lasts as long as one's patience.
func (w *world) soon() context.Context {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	w.t.Cleanup(cancel)
	return ctx
}

// short is a context for one of several attempts.
func (w *world) short() (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.ctx, 3*time.Second)
}

// subnet is the IPv4 subnet that a network has.
func (w *world) subnet(network godbus.ObjectPath) netip.Prefix {
	w.t.Helper()
	p, err := netip.ParsePrefix(w.text(network, "Subnet"))
	w.must(err)
	return p
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// eventually polls until the condition gives no error.
func (w *world) eventually(what string, cond func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) || w.ctx.Err() != nil {
			w.t.Fatalf("not seen: %s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

// run runs a program on the laptop.
func (w *world) run(args ...string) string {
	w.t.Helper()
	out, err := w.Laptop.Run(w.ctx, args...)
	w.must(err)
	return out
}

// guest adds a guest to a network over the bus; it has a lease on return.
func (w *world) guest(name string, network godbus.ObjectPath) (*lab.Guest, lab.Lease) {
	w.t.Helper()
	g := w.attached(name, network)
	return g, w.lease(g, netip.Prefix{})
}

// attached is guest without DHCP.
func (w *world) attached(name string, network godbus.ObjectPath) *lab.Guest {
	w.t.Helper()
	g, err := w.AddGuest(w.ctx, name)
	w.must(err)
	w.call(network, "Network.Attach", g.Port, options{})
	w.guests = append(w.guests, g)
	return g
}

// lease starts the guest's DHCP client and waits for a lease.
func (w *world) lease(g *lab.Guest, within netip.Prefix) lab.Lease {
	w.t.Helper()
	w.must(g.DHCP(w.ctx))
	l, err := g.WaitLease(w.soon(), within)
	w.must(err)
	return l
}

// reaches waits until the host reaches the internet, and returns as whom.
func (w *world) reaches(h *lab.Host) netip.Addr {
	w.t.Helper()
	seen, err := h.Reach(w.soon(), lab.EchoIPv4)
	w.must(err)
	return seen.Addr()
}

// reachesBy waits until the host reaches the internet by the site.
func (w *world) reachesBy(h *lab.Host, site string) {
	w.t.Helper()
	w.eventually(h.Name+" reaches the internet by site "+site, func() error {
		ctx, cancel := w.short()
		defer cancel()
		seen, err := h.Reach(ctx, lab.EchoIPv4)
		if err == nil && !w.Site(site).Options.IPv4.Contains(seen.Addr()) {
			err = fmt.Errorf("it was seen as %s", seen)
		}
		return err
	})
}

// cannotReach fails if the host gets an answer from the server within a second and a half.
func (w *world) cannotReach(h *lab.Host, server netip.AddrPort) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 1500*time.Millisecond)
	defer cancel()
	if seen, err := h.Reach(ctx, server); err == nil {
		w.t.Errorf("%s reached %s as %s, and should not have", h.Name, server, seen)
	}
}

// noSpoofed fails if a site saw a packet of a guest with a source that is not of its LAN.
func (w *world) noSpoofed() {
	w.t.Helper()
	for _, s := range w.Sites {
		sp, err := s.Spoofed(w.ctx)
		w.must(err)
		for source, packets := range sp.Sources {
			// The host's own sockets that stay bound to the other site's address are the host's business.
			for _, other := range w.Sites {
				if other.Options.IPv4.Contains(source) || other.Options.IPv6.Contains(source) {
					packets = 0
				}
			}
			if packets > 0 {
				w.t.Errorf("site %s saw %d packets from %s, which is not of its LAN", s.Name, packets, source)
			}
		}
	}
}

// log returns what gangwayd has said so far.
func (w *world) log() string {
	log, err := w.Daemon().Log()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Error(err)
	}
	return log
}
