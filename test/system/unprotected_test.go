package system_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// TestWithoutSnippet has no word in NetworkManager's configuration about our bridges: it takes them for devices that
// somebody else configured, and they must work nevertheless, over its restart and an unplug, and leave nothing in it.
func TestWithoutSnippet(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{NMUnmanaged: "interface-name:nobody-has-this"})
	g, _ := w.guest("one", w.network)
	w.reachesBy(g.Host, "b")
	const bridge = "gway0"
	w.waitActivated(bridge) // NetworkManager has found it
	w.must(w.NM.Restart(w.soon()))
	w.must(w.NM.WaitPrimary(w.soon(), "eth0"))
	w.waitActivated(bridge)
	w.reachesBy(g.Host, "b")
	list, err := w.property(root, "Uplinks")
	w.must(err)
	if slices.Contains(list.([]godbus.ObjectPath), uplinkPath(bridge)) {
		t.Errorf("our own bridge is an uplink: %v", list)
	}
	w.waitActivated("wlan0")
	w.must(w.Site("b").Unplug())
	w.waitUplink(w.network, "wlan0")
	w.reachesBy(g.Host, "a")
	w.waitProperty(w.network, "State", "active")

	w.must(w.Daemon().Kill(w.soon(), unix.SIGTERM))
	w.eventually("NetworkManager has forgotten the bridge", func() error {
		out, err := w.NM.Cli(w.ctx, "-t", "-f", "NAME,DEVICE", "connection", "show")
		if err == nil && strings.Contains(out, bridge) {
			err = fmt.Errorf("it has %q", out)
		}
		return err
	})
	w.noSpoofed()
}
