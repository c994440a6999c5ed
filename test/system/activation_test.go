package system_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

// udhcpcScript takes what the server offers, as busybox's client wants it.
const udhcpcScript = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
`

// namedGuest is a guest that tells its name to the DHCP server, as most do.
func (w *world) namedGuest(name string) (*lab.Guest, netip.Addr) {
	w.t.Helper()
	g := w.attached(name, w.network)
	script := filepath.Join(w.Dir(), "udhcpc")
	w.must(os.WriteFile(script, []byte(udhcpcScript), 0o755))
	_, err := g.Run(w.soon(), "busybox", "udhcpc", "-i", lab.GuestInterface, "-x", "hostname:"+name, "-s", script, "-q", "-f", "-t", "20", "-T", "1")
	w.must(err)
	addr, err := g.WaitAddress(w.soon(), lab.GuestInterface, netip.MustParsePrefix(w.text(w.network, "Subnet")))
	w.must(err)
	return g, addr
}

func TestFirstCallStartsAll(t *testing.T) {
	t.Parallel()
	w := setUp(t, lab.Options{})
	w.waitUplinks()
	path := w.call(root, "Manager.NetworkByName", "default")[0]
	if path != w.network {
		t.Fatalf("the default network is %v", path)
	}
	w.waitProperty(w.network, "State", "active")
	for property, want := range map[string]any{
		"Name": "default", "StateReason": "", "Bridge": "gway0", "Subnet": "192.168.231.0/24", "Address": "192.168.231.1/24",
		"IPv4State": "nat", "Uplink": uplinkPath("eth0"), "Nameservers": []string{"10.20.0.1"},
	} {
		if got := w.get(w.network, property); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", property, got, want)
		}
	}
	w.waitProperty(root, "State", "online")
	w.waitProperty(root, "PrimaryUplink", uplinkPath("eth0"))

	g, l := w.guest("one", w.network)
	if l.Router != netip.MustParseAddr("192.168.231.1") || len(l.DNS) != 1 || l.DNS[0] != l.Router {
		t.Errorf("the lease is %+v", l)
	}
	w.reachesBy(g.Host, "b")
	w.resolves(g.Host, "b")
	// Names of guests, forward and reverse, for other guests and for the host.
	w.waitProperty(w.network, "LeaseCount", uint32(1))
	_, addr := w.namedGuest("two")
	for _, h := range []*lab.Host{g.Host, w.Laptop} {
		w.names(h, "two.default.internal", addr)
		w.names(h, "gateway.default.internal", l.Router)
	}
	w.noSpoofed()
}

// resolves waits until the host's gateway answers with the site's DNS.
func (w *world) resolves(h *lab.Host, site string) {
	w.t.Helper()
	gateway := netip.AddrPortFrom(netip.MustParsePrefix(w.text(w.network, "Address")).Addr(), 53)
	w.eventually(h.Name+" asks the DNS of site "+site, func() error {
		a, err := h.Query(w.ctx, gateway, "site.example", lab.TypeTXT)
		if err == nil && !slices.Equal(a.Texts, []string{site}) {
			err = fmt.Errorf("the answer is %+v", a)
		}
		return err
	})
}

// names checks that a name stands for the address, and the other way round.
func (w *world) names(h *lab.Host, name string, addr netip.Addr) {
	w.t.Helper()
	gateway := netip.AddrPortFrom(netip.MustParsePrefix(w.text(w.network, "Address")).Addr(), 53)
	w.eventually(name+" is known to "+h.Name, func() error {
		a, err := h.Query(w.ctx, gateway, name, lab.TypeA)
		if err == nil && !slices.Equal(a.Addrs, []netip.Addr{addr}) {
			err = fmt.Errorf("the answer is %+v, not %s", a, addr)
		}
		return err
	})
	if strings.HasPrefix(name, "gateway.") {
		return
	}
	back, err := h.Resolver(gateway).LookupAddr(w.soon(), addr.String())
	if err != nil || !slices.Equal(back, []string{name + "."}) {
		w.t.Errorf("%s is %v (%v) to %s, not %s", addr, back, err, h.Name, name)
	}
}

func TestNamesWithoutUplink(t *testing.T) {
	t.Parallel()
	sites := lab.DefaultSites()
	for i := range sites {
		sites[i].Unplugged = true
	}
	w := setUp(t, lab.Options{Sites: sites})
	w.waitProperty(w.network, "State", "active")
	w.waitProperty(w.network, "IPv4State", "offline")
	w.waitProperty(root, "State", "offline")
	if got := w.get(root, "PrimaryUplink"); got != godbus.ObjectPath("/") {
		t.Errorf("the primary uplink is %v", got)
	}
	g, addr := w.namedGuest("one")
	w.names(g.Host, "one.default.internal", addr)
	w.names(w.Laptop, "one.default.internal", addr)
	// And when there is one at last, all is well.
	w.must(w.Site("a").Plug())
	w.run("ip", "link", "set", "wlan0", "up")
	w.reachesBy(g.Host, "a")
	w.names(g.Host, "one.default.internal", addr)
	w.noSpoofed()
}
