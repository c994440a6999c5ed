package system_test

import (
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

// TestAuthorization asks as nobody: without polkitd, with it but no rule, and with a rule for one action at a time.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	w := setUp(t, lab.Options{NoPolkit: true})
	w.waitUplinks()
	w.waitProperty(w.network, "State", "active")
	w.waitProperty(w.network, "IPv4State", "nat")
	nobody, err := w.BusAs(65534, 65534)
	w.must(err)
	defer nobody.Close()
	free, err := w.AddGuest(w.ctx, "free")
	w.must(err)
	w.waitIPv6()
	w.settled()

	// Who didn't say that a person may be asked is told that asking would help, where it would.
	denied := func(name string) bool {
		return name == "org.freedesktop.DBus.Error.AccessDenied" || name == "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
	}
	actions := []struct {
		action, member string
		path           godbus.ObjectPath
		args           []any
	}{
		{"manage-networks", "Manager.CreateNetwork", root, []any{"mine", options{}}},
		{"manage-networks", "Network.Update", w.network, []any{dict("domain", "mine.internal")}},
		{"control-networks", "Network.Stop", w.network, nil},
		{"control-networks", "Network.Start", w.network, nil},
		{"attach-interface", "Network.Attach", w.network, []any{free.Port, options{}}},
		{"attach-interface", "Network.Detach", w.network, []any{free.Port}},
		{"manage-networks", "Network.Delete", root + "/network/mine", nil},
	}
	allDenied := func(when string) {
		t.Helper()
		before, files := w.objects(), w.files("etc/gangway")
		for _, a := range actions {
			if a.path == root+"/network/mine" {
				a.path = w.network
			}
			if name, message := w.fault(nobody, a.path, a.member, a.args...); !denied(name) {
				t.Errorf("%s: %s: %q: %s", when, a.member, name, message)
			}
		}
		if err := difference(before, w.objects()); err != nil {
			t.Errorf("%s: what was denied changed something: %v", when, err)
		}
		if d := files.diff(w.files("etc/gangway")); d != "" || len(files) != len(w.files("etc/gangway")) {
			t.Errorf("%s: what was denied changed files: %s", when, d)
		}
		// Reading is everybody's.
		if _, err := managed(nobody); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if name, _ := w.fault(nobody, w.network, "Network.GetLeases"); name != "" {
			t.Errorf("%s: GetLeases: %s", when, name)
		}
	}
	allDenied("without polkitd")
	w.must(w.Polkit.Start(w.soon()))
	allDenied("without a rule")
	for _, a := range actions {
		w.must(w.Polkit.Allow(w.soon(), busName+".other"))
		if name, _ := w.fault(nobody, a.path, a.member, a.args...); !denied(name) && a.path != root+"/network/mine" {
			t.Errorf("%s without its rule: %q", a.member, name)
		}
		w.must(w.Polkit.Allow(w.soon(), busName+"."+a.action))
		if name, message := w.fault(nobody, a.path, a.member, a.args...); name != "" {
			t.Errorf("%s with its rule: %s: %s", a.member, name, message)
		}
		if a.member == "Network.Attach" {
			ports := w.call(w.network, "Network.GetPorts")[0].([]map[string]godbus.Variant)
			if len(ports) != 1 || ports[0]["owner"].Value() != uint32(65534) {
				t.Errorf("the port is not its asker's: %v", ports)
			}
		}
	}
	w.must(w.Polkit.SetRules(w.soon(), ""))
	allDenied("with the rules taken back")
	// Nobody can pose as the daemon or command its name servers.
	if reply, err := nobody.RequestName(busName, godbus.NameFlagReplaceExisting); err == nil {
		t.Errorf("nobody may own the name: %v", reply)
	}
	if err := nobody.Object(busName+".dnsmasq.default", "/uk/org/thekelleys/dnsmasq").Call("uk.org.thekelleys.dnsmasq.ClearCache", 0).Err; err == nil {
		t.Error("nobody may command dnsmasq")
	}
}
