// Demo shows what Gangway is for: a laptop built from network namespaces, with a real
// NetworkManager, system bus and polkit, is carried from one access network to another
// while two guests and the laptop itself keep talking to a host on the internet. It
// prints who could reach what, and when.
//
// Nothing of the machine's own network is touched, and everything is removed at the
// end, also after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"gangway/test/lab"
)

func main() {
	daemon := flag.String("gangwayd", "bin/gangwayd", "the daemon's `path`")
	data := flag.String("data", "data", "the `directory` with bus and polkit policies")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *daemon, *data)
	switch {
	case ctx.Err() != nil:
		fmt.Println("\ninterrupted; everything has been removed")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, daemon, data string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out := newScreen(os.Stdout)
	started := time.Now()
	out.title("Gangway: guests that stay moored while the laptop moves")
	out.text("A laptop of network namespaces, with a real NetworkManager, D-Bus, polkit and dnsmasq,",
		"lies between four access networks: eth0 (the dock), eth1 (another desk's cable), wlan0 (Wi-Fi,",
		"whose access point refuses what isn't from the laptop's own MAC) and wwan0 (a modem). Two",
		"guests hang on Gangway's default network. Nothing of this machine's own network is touched.", "")

	w := &world{out: out}
	step := func(what string, do func() error) error { return out.step(what, do) }
	if err := step("raising the laptop, four sites and the internet", func() (err error) {
		policies, err := filepath.Abs(data)
		if err != nil {
			return err
		}
		w.lab, err = lab.New(ctx, lab.Options{Sites: sites(), Gangwayd: daemon, BusPolicyDir: policies, PolkitActionDir: policies,
			NMConfDir: policies})
		return err
	}); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, step("removing everything", w.lab.Close))
		if err == nil {
			out.text("", fmt.Sprintf("Done in %.0f s. `make bench` measures the same in paired runs; the README explains it.", time.Since(started).Seconds()))
		}
	}()
	if err := step("waiting until NetworkManager has all uplinks", func() error { return w.waitUplinks(ctx) }); err != nil {
		return err
	}
	if err := w.start(ctx); err != nil {
		return w.explain(err)
	}
	for _, s := range scenes {
		if err := w.play(ctx, s); err != nil {
			return w.explain(err)
		}
	}
	return nil
}

// explain adds the daemon's last words to an error.
func (w *world) explain(err error) error {
	if log, logErr := w.lab.Daemon().Log(); logErr == nil && len(log) > 0 {
		if len(log) > 4000 {
			log = "…" + log[len(log)-4000:]
		}
		err = fmt.Errorf("%w\ngangwayd said:\n%s", err, log)
	}
	return err
}

// sites are the dock, another desk and Wi-Fi, each with a router of its own, and a mobile carrier.
func sites() []lab.SiteOptions {
	list := append(lab.DefaultSites(), lab.SiteOptions{Name: "c", Uplink: "eth1", Metric: 200,
		IPv4: netip.MustParsePrefix("172.20.0.0/24"), IPv6: netip.MustParsePrefix("2001:db8:c::/64")})
	for i := range list {
		ra := lab.DefaultRA(list[i].IPv6)
		list[i].RA = &ra
		list[i].WiFi = list[i].Uplink == "wlan0"
	}
	return append(list, lab.SiteOptions{Name: "w", Uplink: "wwan0", Metric: 700, WWAN: true,
		IPv4: netip.MustParsePrefix("100.64.7.0/30"), IPv6: netip.MustParsePrefix("2001:db8:d::/64")})
}
