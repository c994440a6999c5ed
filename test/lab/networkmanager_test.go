package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetworkManagerRestarts kills NetworkManager, starts it again and lets it write resolv.conf.
func TestNetworkManagerRestarts(t *testing.T) {
	t.Parallel()
	l := Start(t, Options{NoPolkit: true, NMResolvConf: true, NMUnmanaged: "interface-name:gway*"})
	ctx := testContext(t)
	first := l.NM.PID()
	if err := l.NM.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := l.NM.Primary(ctx); err == nil {
		t.Errorf("a dead NetworkManager says that %q is primary", got)
	}
	if _, err := l.Laptop.Reach(ctx, EchoIPv4); err != nil {
		t.Error("NetworkManager's end took the network down:", err)
	}
	if err := l.NM.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.NM.WaitPrimary(ctx, "eth0"); err != nil {
		t.Fatal(err)
	}
	if l.NM.PID() == first {
		t.Error("the same process after the restart")
	}
	if err := l.NM.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.NM.WaitPrimary(ctx, "eth0"); err != nil {
		t.Fatal(err)
	}
	want := "nameserver " + l.Site("b").RouterIPv4.String()
	err := poll(ctx, func() (bool, error) {
		b, err := os.ReadFile(filepath.Join(l.Dir(), "etc/resolv.conf"))
		return strings.Contains(string(b), want), err
	})
	if err != nil {
		t.Errorf("resolv.conf lacks %q: %v", want, err)
	}
	if out, err := l.Laptop.Run(ctx, "cat", "/etc/resolv.conf"); err != nil || !strings.Contains(out, want) {
		t.Errorf("the laptop's resolv.conf is %q, %v", out, err)
	}
	if own, err := os.ReadFile("/etc/resolv.conf"); err != nil || strings.Contains(string(own), want) {
		t.Errorf("the lab changed this machine's resolv.conf to %q, %v", own, err)
	}
	// Unplugging both leaves none.
	for _, s := range l.Sites {
		if err := s.Unplug(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.NM.WaitPrimary(ctx, ""); err != nil {
		t.Error(err)
	}
}
