package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gangway/test/lab"
)

// A real NetworkManager takes a bridge that appears for its own, but not ours, also where its
// main configuration file has a list of unmanaged devices, which outdoes those of snippets.
func TestNetworkManagerLeavesOurBridgesAlone(t *testing.T) {
	l := lab.Start(t, lab.Options{NoNetworkManager: true, NoPolkit: true, NMUnmanaged: "interface-name:somebody0"})
	// Read as early as what is installed in /usr/lib (NetworkManager.conf(5)), before the main file.
	dir := filepath.Join(l.Dir(), "run/NetworkManager/conf.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "90-gangway.conf"), []byte(read(t, "../../data/90-gangway.conf")), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	if err := l.NM.Start(ctx); err != nil {
		t.Fatal(err)
	}
	add := func(number int, name string) {
		t.Helper()
		for _, command := range []string{
			"ip link add " + name + " type bridge",
			fmt.Sprintf("ip address add 192.0.2.%d/28 dev %s", number<<4+1, name),
			"ip link set " + name + " up",
		} {
			if _, err := l.Laptop.Run(ctx, strings.Fields(command)...); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Ours first, then one by one two that NetworkManager takes: by the second it has decided on ours.
	for i, name := range []string{"gway0", "gway12", "somebody0", "theirs0"} {
		add(i, name)
	}
	waitManaged(ctx, t, l, "theirs0")
	add(4, "theirs1")
	states := waitManaged(ctx, t, l, "theirs1")
	for _, name := range []string{"gway0", "gway12", "somebody0"} {
		if states[name] != "unmanaged" {
			t.Errorf("%s is %q to NetworkManager, want unmanaged", name, states[name])
		}
	}
}

// waitManaged waits until NetworkManager manages the device, and returns the states of all.
func waitManaged(ctx context.Context, t *testing.T, l *lab.Lab, device string) map[string]string {
	t.Helper()
	for {
		text, err := l.NM.Cli(ctx, "-t", "-f", "DEVICE,STATE", "device")
		if err != nil {
			t.Fatal(err)
		}
		states := map[string]string{}
		for line := range strings.Lines(text) {
			name, state, _ := strings.Cut(strings.TrimSpace(line), ":")
			states[name] = state
		}
		if state := states[device]; state != "" && state != "unmanaged" {
			return states
		}
		select {
		case <-ctx.Done():
			t.Fatalf("NetworkManager doesn't manage %s, so this test shows nothing:\n%s", device, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
