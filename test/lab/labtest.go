package lab

import (
	"context"
	"testing"
	"time"
)

// Start is New for tests: the lab is closed with the test, a failed test shows the lab's logs, and an
// interrupt closes it too. It waits until NetworkManager has its primary connection, if there is to be one.
func Start(t testing.TB, o Options) *Lab {
	t.Helper()
	CloseOnSignal()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	l, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.DumpLogs(t.Output(), 16<<10)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if want := l.Expected(); !o.NoNetworkManager && want != "" {
		if err := l.NM.WaitPrimary(ctx, want); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// Expected is the interface that ought to become NetworkManager's primary connection after the start: that of
// the uplink with the lowest metric among those with carrier, or its bridge; "" if none has.
func (l *Lab) Expected() string {
	var best *UplinkOptions
	for i := range l.options.Sites {
		for _, u := range l.options.Sites[i].uplinks() {
			if !u.Unplugged && (best == nil || u.Metric < best.Metric) {
				best = &u
			}
		}
	}
	if best == nil {
		return ""
	}
	return best.Interface()
}
