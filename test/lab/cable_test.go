package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTwoCablesIntoOneLAN has the laptop on the same switch by two interfaces, the second of which NetworkManager has as a bridge's port.
// The router says that there is DHCPv6.
func TestTwoCablesIntoOneLAN(t *testing.T) {
	t.Parallel()
	site := DefaultSites()[1]
	ra := DefaultRA()
	ra.Managed = true
	site.Uplink, site.Metric, site.RA, site.DHCPv6 = "office0", 600, &ra, true
	site.More = []UplinkOptions{{Name: "dock0", Metric: 100, Bridge: "br0", HeedCarrier: true, Profile: "[user]\nlab.note=hello\n"}}
	l := Start(t, Options{NoPolkit: true, Sites: []SiteOptions{site}, NMConfDir: "../../data",
		NMConf: map[string]string{"95-note.conf": "[main]\nno-auto-default=*\n[.config]\nenable=true\n"}})
	ctx := testContext(t)
	b := l.Site("b")
	office, dock := l.Cable("office0"), l.Cable("dock0")
	if got := l.Expected(); got != "br0" || b.Interface != "office0" {
		t.Errorf("expected is %q, the site's interface %q", got, b.Interface)
	}
	if _, _, err := b.WaitUplink(ctx); err != nil {
		t.Fatal(err)
	}
	for _, within := range []string{b.Options.IPv4.String(), b.Options.IPv6.String(), "2001:db8:b::100/120"} {
		if _, err := l.Laptop.WaitAddress(ctx, "br0", pfx(within)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := l.NM.Cli(ctx, "-t", "-f", "DEVICE,TYPE,STATE", "device")
	if err != nil || !strings.Contains(out, "br0:bridge:connected\n") || !strings.Contains(out, "dock0:ethernet:connected\n") || !strings.Contains(out, "office0:ethernet:connected\n") {
		t.Errorf("nmcli says %q, %v", out, err)
	}
	if out, err := l.Laptop.Run(ctx, "ls", "/sys/class/net/br0/brif"); err != nil || strings.TrimSpace(out) != "dock0" {
		t.Errorf("the bridge's ports are %q, %v", out, err)
	}
	for name, want := range map[string]string{"conf.d/95-note.conf": "no-auto-default", "conf.d/90-gangway.conf": "gway*", "NetworkManager.conf": "[device-carrier-br0]", "system-connections/br0.nmconnection": "lab.note=hello"} {
		if text, err := os.ReadFile(filepath.Join(l.Dir(), "etc/NetworkManager", name)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s is %q, %v, want %q", name, text, err, want)
		}
	}
	// Each is plugged by itself, and what goes by one isn't seen on the other.
	onOffice, err := office.Capture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	onDock, err := dock.Capture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Laptop.Reach(ctx, EchoIPv4); err != nil {
		t.Fatal(err)
	}
	udp := func(f Frame) bool { return f.Protocol() == protoUDP && f.DstIP() == InternetIPv4 }
	if _, err := onDock.Wait(ctx, udp); err != nil || onOffice.Count(udp) != 0 {
		t.Errorf("the echo went by the wrong cable: %v", err)
	}
	if err := dock.Unplug(); err != nil {
		t.Fatal(err)
	}
	// It would be the bridge for ever without ignore-carrier=no.
	if err := l.NM.WaitPrimary(ctx, "office0"); err != nil {
		t.Fatal(err)
	}
	if err := poll(ctx, func() (bool, error) {
		_, err := l.Laptop.Reach(ctx, EchoIPv4)
		return onOffice.Count(udp) > 0, err
	}); err != nil {
		t.Error(err)
	}
	if err := dock.Plug(); err != nil {
		t.Fatal(err)
	}
	if err := l.NM.WaitPrimary(ctx, "br0"); err != nil {
		t.Error(err)
	}
}
