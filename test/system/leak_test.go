package system_test

import (
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// TestNothingLeaksWhenSubnetsGo has guests talk all the time while their subnet is changed, their network stopped and
// deleted. No packet of theirs, and no answer to them, may leave by an uplink with a source that isn't the laptop's.
func TestNothingLeaksWhenSubnetsGo(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	g, _ := w.guest("one", w.network)
	other := w.create("other", options{})
	h, _ := w.guest("two", other)
	w.reachesBy(g.Host, "b")
	w.reachesBy(h.Host, "b")
	for _, guest := range w.guests {
		p, err := guest.ProbeFlow(w.ctx, lab.EchoIPv4, lab.ProbeOptions{Interval: time.Millisecond})
		w.must(err)
		_, err = p.WaitSuccess(w.soon(), time.Now())
		w.must(err)
		defer p.Finish()
	}
	for _, c := range []struct {
		path   godbus.ObjectPath
		member string
		args   []any
	}{
		{w.network, "Network.Update", []any{dict("ipv4-subnet", "192.168.222.0/24")}},
		{other, "Network.Stop", nil},
		{other, "Network.Start", nil},
		{w.network, "Network.Update", []any{dict("ipv4-method", "isolated")}},
		{w.network, "Network.Update", []any{dict("ipv4-method", "nat", "ipv4-subnet", "192.168.223.0/24")}},
		{other, "Network.Delete", nil},
	} {
		w.call(c.path, c.member, c.args...)
		if c.member != "Network.Delete" && c.member != "Network.Stop" {
			_, err := g.WaitLease(w.soon(), w.subnet(w.network))
			w.must(err)
		}
		w.noSpoofed()
		if t.Failed() {
			t.Fatalf("after %s %v", c.member, c.args)
		}
	}
	w.reachesBy(g.Host, "b")
	w.kill(unix.SIGTERM)
	w.noSpoofed()
}
