package system_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

// TestBadInput calls every method with what it must not take. Each time the error has the contract's name and says
// what is wrong, and nothing changes: no property, no file, nothing in the kernel.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	w.waitIPv6()
	const invalidArgs = "org.freedesktop.DBus.Error.InvalidArgs"
	var (
		kernel  = w.settled()
		objects = w.objects()
		files   = map[string]picture{}
		dirs    = []string{"etc/gangway", "state/gangway", "run/gangway"}
	)
	for _, dir := range dirs {
		files[dir] = w.files(dir)
	}
	refused := func(want, names string, path godbus.ObjectPath, member string, args ...any) {
		t.Helper()
		name, message := w.fault(w.bus, path, member, args...)
		if name != want || !strings.Contains(message, names) {
			t.Errorf("%s%.80v: %s: %q, want %s with %q", member, fmt.Sprint(args...), name, message, want, names)
		}
		if d := difference(objects, w.objects()); d != nil {
			t.Fatalf("%s%.80v changed something: %v", member, fmt.Sprint(args...), d)
		}
	}

	hostile := []string{"", "../default", "..", "/", "a/b", "x\ny", "x;reboot", "x y", "$(reboot)", "x'", `x"`, "-x", "x-", "X", "1x", "ä", "_x",
		strings.Repeat("x", 33), strings.Repeat("x", 100000)}
	for _, name := range hostile {
		refused("InvalidSetting", "name", root, "Manager.CreateNetwork", name, options{})
		refused("NoSuchNetwork", "", root, "Manager.NetworkByName", name)
		refused("NoSuchUplink", "", root, "Manager.UplinkByInterface", name)
	}
	refused("NetworkExists", "default", root, "Manager.CreateNetwork", "default", options{})

	// Settings: the same for a new network and for one that is there.
	long := strings.Repeat("x", 100000)
	for _, s := range []struct {
		key   string
		value any
		want  string
	}{
		{"nosuch", true, "InvalidSetting"},
		{"Autostart", true, "InvalidSetting"},
		{"", true, "InvalidSetting"},
		{"a\nb", "c", "InvalidSetting"},
		{"autostart", "true", "InvalidSetting"},
		{"autostart", uint32(1), "InvalidSetting"},
		{"mtu", int32(1500), "InvalidSetting"},
		{"mtu", uint16(1500), "InvalidSetting"},
		{"mtu", uint32(1), "InvalidSetting"},
		{"mtu", uint32(1279), "InvalidSetting"},
		{"mtu", uint32(65536), "InvalidSetting"},
		{"mtu", uint32(4294967295), "InvalidSetting"},
		{"bridge", "sixteencharslong", "InvalidSetting"},
		{"bridge", "../x", "InvalidSetting"},
		{"bridge", "a b", "InvalidSetting"},
		{"bridge", "x\ny", "InvalidSetting"},
		{"bridge", "x;y", "InvalidSetting"},
		{"bridge", "-x", "InvalidSetting"},
		{"bridge", "all", "InvalidSetting"},
		{"bridge", "lo", "InvalidSetting"},
		{"bridge", "eth0", "InUse"},
		{"bridge", true, "InvalidSetting"},
		{"ipv4-method", "bridge", "InvalidSetting"},
		{"ipv4-method", "NAT", "InvalidSetting"},
		{"ipv4-method", "", "InvalidSetting"},
		{"ipv4-subnet", "", "InvalidSetting"},
		{"ipv4-subnet", "192.168.99.0", "InvalidSetting"},
		{"ipv4-subnet", "192.168.99.0/31", "InvalidSetting"},
		{"ipv4-subnet", "192.168.99.0/30", "InvalidSetting"},
		{"ipv4-subnet", "192.168.99.0/33", "InvalidSetting"},
		{"ipv4-subnet", "192.168.99.0/-1", "InvalidSetting"},
		{"ipv4-subnet", "192.168.99.1/24", "InvalidSetting"},
		{"ipv4-subnet", "0.0.0.0/0", "InvalidSetting"},
		{"ipv4-subnet", "8.8.8.0/24", "InvalidSetting"},
		{"ipv4-subnet", "127.0.0.0/8", "InvalidSetting"},
		{"ipv4-subnet", "169.254.0.0/16", "InvalidSetting"},
		{"ipv4-subnet", "224.0.0.0/24", "InvalidSetting"},
		{"ipv4-subnet", "172.16.0.0/8", "InvalidSetting"},
		{"ipv4-subnet", "2001:db8::/64", "InvalidSetting"},
		{"ipv4-subnet", "fd00::/64", "InvalidSetting"},
		{"ipv4-subnet", "::ffff:192.168.99.0/120", "InvalidSetting"},
		{"ipv4-subnet", "192.168.99.0/24\n", "InvalidSetting"},
		{"ipv4-subnet", "192.168.099.0/24", "InvalidSetting"},
		{"ipv4-subnet", long, "InvalidSetting"},
		{"ipv4-subnet", "10.20.0.0/24", "SubnetConflict"},
		{"ipv4-subnet", "10.0.0.0/8", "SubnetConflict"},
		{"ipv4-subnet", "192.168.10.128/25", "SubnetConflict"},
		{"on-clash", "panic", "InvalidSetting"},
		{"ipv6-method", "slaac", "InvalidSetting"},
		{"ipv6-method", "nat", "InvalidSetting"},
		{"ipv6-prefix", "2001:db8::/65", "InvalidSetting"},
		{"ipv6-prefix", "2001:db8::1/64", "InvalidSetting"},
		{"ipv6-prefix", "fe80::/64", "InvalidSetting"},
		{"nat66-fallback", "true", "InvalidSetting"},
		{"inbound", "maybe", "InvalidSetting"},
		{"uplink", "", "InvalidSetting"},
		{"uplink", "sixteencharslong", "InvalidSetting"},
		{"uplink", "../../etc", "InvalidSetting"},
		{"uplink", "eth0;id", "InvalidSetting"},
		{"vpn", "ignore", "InvalidSetting"},
		{"host-access", "none", "InvalidSetting"},
		{"domain", "", "InvalidSetting"},
		{"domain", "local", "InvalidSetting"},
		{"domain", "a..b", "InvalidSetting"},
		{"domain", "a b", "InvalidSetting"},
		{"domain", "a\naddn-hosts=/etc/shadow", "InvalidSetting"},
		{"domain", "a,b", "InvalidSetting"},
		{"domain", strings.Repeat("a", 64) + ".x", "InvalidSetting"},
		{"domain", strings.Repeat("a.", 127) + "a", "InvalidSetting"},
		{"dhcp", []string{"x"}, "InvalidSetting"},
		{"dhcp-hosts", "x", "InvalidSetting"},
		{"dhcp-hosts", []options{{}}, "InvalidSetting"},
		{"dhcp-hosts", []options{dict("mac", "02:00:00:00:00:01")}, "InvalidSetting"},
		{"dhcp-hosts", []options{dict("mac", "03:00:00:00:00:01", "hostname", "x")}, "InvalidSetting"},
		{"dhcp-hosts", []options{dict("mac", "x", "hostname", "x")}, "InvalidSetting"},
		{"dhcp-hosts", []options{dict("mac", "02:00:00:00:00:01", "hostname", "x,set:y")}, "InvalidSetting"},
		{"dhcp-hosts", []options{dict("mac", "02:00:00:00:00:01", "hostname", "x\ny")}, "InvalidSetting"},
		{"dhcp-hosts", []options{dict("mac", "02:00:00:00:00:01", "address", "::1")}, "InvalidSetting"},
		{"dhcp-hosts", []options{dict("mac", "02:00:00:00:00:01", "address", "192.168.1.5", "nosuch", "x")}, "InvalidSetting"},
		{"dhcp-hosts", []options{dict("mac", uint32(1), "hostname", "x")}, "InvalidSetting"},
		{"dhcp-hosts", []options{dict("mac", "02:00:00:00:00:01", "hostname", "a"), dict("mac", "02:00:00:00:00:01", "hostname", "b")}, "InvalidSetting"},
		{"isolate-ports", "yes", "InvalidSetting"},
	} {
		names := s.key
		if strings.Contains(s.key, "\n") {
			names = ""
		}
		// With a good one beside it: all or nothing.
		settings := options{"host-access": godbus.MakeVariant("all")}
		maps.Copy(settings, dict(s.key, s.value))
		refused(s.want, names, root, "Manager.CreateNetwork", "fresh", settings)
		refused(s.want, names, w.network, "Network.Update", settings)
	}

	// Wrong signatures, methods, objects.
	for _, c := range []struct {
		want   string
		path   godbus.ObjectPath
		member string
		args   []any
	}{
		{invalidArgs, root, "Manager.CreateNetwork", []any{"x"}},
		{invalidArgs, root, "Manager.CreateNetwork", nil},
		{invalidArgs, root, "Manager.CreateNetwork", []any{uint32(1), options{}}},
		{invalidArgs, root, "Manager.CreateNetwork", []any{"x", []string{"y"}}},
		{invalidArgs, root, "Manager.NetworkByName", []any{uint32(1)}},
		{invalidArgs, root, "Manager.UplinkByInterface", []any{true}},
		{invalidArgs, root, "Manager.Diagnose", []any{"x"}},
		{invalidArgs, w.network, "Network.Start", []any{"x"}},
		{invalidArgs, w.network, "Network.Stop", []any{uint32(0)}},
		{invalidArgs, w.network, "Network.Delete", []any{true}},
		{invalidArgs, w.network, "Network.Update", []any{"x"}},
		{invalidArgs, w.network, "Network.Attach", []any{"x"}},
		{invalidArgs, w.network, "Network.Attach", []any{uint32(3), options{}}},
		{invalidArgs, w.network, "Network.Detach", nil},
		{invalidArgs, w.network, "Network.OpenTap", []any{"x"}},
		{invalidArgs, w.network, "Network.AddForward", []any{"x"}},
		{invalidArgs, w.network, "Network.RemoveForward", []any{uint32(1)}},
		{invalidArgs, w.network, "Network.GetLeases", []any{"x"}},
		{invalidArgs, w.network, "Network.GetPorts", []any{"x"}},
		{invalidArgs, w.network, "Network.GetForwards", []any{"x"}},
		{invalidArgs, uplinkPath("eth0"), "Uplink.SetSharing", []any{true}},
		{"org.freedesktop.DBus.Error.UnknownMethod", root, "Manager.Nosuch", nil},
		{"org.freedesktop.DBus.Error.UnknownObject", root + "/network/nosuch", "Network.Start", nil},
		{"org.freedesktop.DBus.Error.UnknownObject", root + "/uplink/nosuch", "Uplink.SetSharing", []any{"auto"}},
	} {
		refused(c.want, "", c.path, c.member, c.args...)
	}
	for _, c := range [][3]string{
		{"org.freedesktop.DBus.Properties.Set", busName + ".Network", "org.freedesktop.DBus.Error.PropertyReadOnly"},
		{"org.freedesktop.DBus.Properties.Set", busName + ".Nosuch", "org.freedesktop.DBus.Error.UnknownInterface"},
	} {
		err := w.bus.Object(busName, w.network).Call(c[0], 0, c[1], "State", godbus.MakeVariant("inactive")).Err
		if e, ok := err.(godbus.Error); !ok || e.Name != c[2] {
			t.Errorf("Set on %s: %v, want %s", c[1], err, c[2])
		}
	}
	for _, ifname := range []string{"", "nosuch0", "sixteencharslong", "../x", "a\nb", "a;b", long} {
		refused("InvalidSetting", "", w.network, "Network.Attach", ifname, options{})
		refused("InvalidSetting", "", w.network, "Network.Detach", ifname)
	}

	for _, dir := range dirs {
		now := w.files(dir)
		if d := files[dir].diff(now); d != "" || len(now) != len(files[dir]) {
			t.Errorf("the files in %s changed, %v to %v:\n%s", dir, slices.Collect(maps.Keys(files[dir])), slices.Collect(maps.Keys(now)), d)
		}
	}
	if d := kernel.diff(w.settled()); d != "" {
		t.Errorf("the kernel changed:\n%s", d)
	}
}
