package system_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

func TestPorts(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	other := w.create("other", options{})
	g, l := w.guest("one", w.network)
	free, err := w.AddGuest(w.ctx, "free")
	w.must(err)
	m := w.watch()
	for _, c := range []struct {
		path   godbus.ObjectPath
		member string
		args   []any
		want   string
		names  string
	}{
		{w.network, "Network.Attach", []any{"nosuch0", options{}}, "InvalidSetting", "nosuch0"},
		{w.network, "Network.Attach", []any{"gway0", options{}}, "InvalidSetting", "gway0"},
		{w.network, "Network.Attach", []any{"lo", options{}}, "InvalidSetting", "lo"},
		{w.network, "Network.Attach", []any{"eth0", options{}}, "InUse", "eth0"},
		{other, "Network.Attach", []any{g.Port, options{}}, "InUse", "gway0"},
		{w.network, "Network.Attach", []any{free.Port, dict("vlan", uint32(1))}, "InvalidSetting", "vlan"},
		{other, "Network.Detach", []any{g.Port}, "InvalidSetting", g.Port},
		{w.network, "Network.Detach", []any{"../x"}, "InvalidSetting", "../x"},
	} {
		name, message := w.fault(w.bus, c.path, c.member, c.args...)
		if name != c.want || !strings.Contains(message, c.names) {
			t.Errorf("%s %v: %s: %s, want %s with %q", c.member, c.args, name, message, c.want, c.names)
		}
	}
	w.call(w.network, "Network.Attach", g.Port, options{}) // again: the same
	w.waitProperty(w.network, "PortCount", uint32(1))
	w.reachesBy(g.Host, "b")
	ports := w.call(w.network, "Network.GetPorts")[0].([]map[string]godbus.Variant)
	if len(ports) != 1 || ports[0]["interface"].Value() != g.Port || ports[0]["kind"].Value() != "attached" || ports[0]["mac"].Value() != g.MAC.String() ||
		ports[0]["rx-bytes"].Value().(uint64) == 0 || ports[0]["owner"].Value() != uint32(0) {
		t.Errorf("the ports are %v", ports)
	}
	leases := w.call(w.network, "Network.GetLeases")[0].([]map[string]godbus.Variant)
	if len(leases) != 1 || leases[0]["address"].Value() != l.Address.Addr().String() || leases[0]["mac"].Value() != g.MAC.String() {
		t.Errorf("the leases are %v", leases)
	}

	// Stop keeps the ports for Start; the guest is back by itself.
	w.call(w.network, "Network.Stop")
	w.call(w.network, "Network.Stop")
	if state := w.text(w.network, "State"); state != "inactive" || w.links("gway0") {
		t.Errorf("stopped, it is %s", state)
	}
	if name, _ := w.fault(w.bus, w.network, "Network.Attach", free.Port, options{}); name != "Failed" {
		t.Errorf("Attach to a stopped network: %q", name)
	}
	w.call(w.network, "Network.Start")
	w.call(w.network, "Network.Start")
	w.reachesBy(g.Host, "b")

	w.call(w.network, "Network.Detach", g.Port)
	w.waitProperty(w.network, "PortCount", uint32(0))
	w.call(other, "Network.Attach", g.Port, options{})
	w.lease(g, w.subnet(other)) // by itself: the port was down in between
	w.reachesBy(g.Host, "b")
	if added, removed := len(m.named("Network.PortAdded")), len(m.named("Network.PortRemoved")); added != 2 || removed != 2 {
		t.Errorf("%d ports added and %d removed", added, removed)
	}

	// Delete leaves nothing of the network.
	w.call(other, "Network.Delete")
	m.agrees()
	if name, _ := w.fault(w.bus, other, "Network.Start"); name != "org.freedesktop.DBus.Error.UnknownObject" {
		t.Errorf("the deleted object says %q", name)
	}
	w.eventually("nothing is left of it", func() error {
		for key, text := range w.look() {
			if strings.Contains(text, "gway1") || strings.Contains(text, "gangway:other") {
				return fmt.Errorf("in %s: %s", key, text)
			}
		}
		return nil
	})
	for _, dir := range []string{"etc/gangway", "state/gangway", "run/gangway"} {
		for path, text := range w.files(dir) {
			if strings.Contains(path, "other") || strings.Contains(text, `"other"`) {
				t.Errorf("%s%s is left, or speaks of it: %s", dir, path, text)
			}
		}
	}
	if n := len(w.processes("dnsmasq")); n != 1 {
		t.Errorf("%d dnsmasq", n)
	}
	networks, _ := w.get(root, "Networks").([]godbus.ObjectPath)
	if !slices.Equal(networks, []godbus.ObjectPath{w.network}) {
		t.Errorf("the networks are %v", networks)
	}
	w.noSpoofed()
}
