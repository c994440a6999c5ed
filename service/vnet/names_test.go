package vnet

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestNetworkNames(t *testing.T) {
	for _, name := range []string{"default", "a", "a1", "a-b", "a_b", "a--b", strings.Repeat("a", 32)} {
		if err := ValidateNetworkName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range append([]string{"A", "Lab", "1a", "_a", "a.b", "a-", "a_", "a.toml", strings.Repeat("a", 33)}, hostile...) {
		if err := ValidateNetworkName(name); KindOf(err) != InvalidSetting {
			t.Errorf("%q: %v, want InvalidSetting", name, err)
		} else if strings.ContainsAny(err.Error(), "\x00\n") {
			t.Errorf("the error has control characters: %q", err)
		}
	}
}

func TestInterfaceNames(t *testing.T) {
	for _, name := range []string{"a", "eth0", "gway0", "wlp3s0", "br-1", "eth0.100", "a_b", ".a", "...", "A", "0", "exactly15bytes_"} {
		if err := ValidateInterfaceName("uplink", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range append([]string{"exactly16bytes__", "lo", "all", "default"}, hostile...) {
		var e *Error
		if err := ValidateInterfaceName("uplink", name); !errors.As(err, &e) || e.Key != "uplink" || e.Kind != InvalidSetting {
			t.Errorf("%q: %v, want InvalidSetting of uplink", name, err)
		}
	}
}

func TestBridgeMAC(t *testing.T) {
	seen := map[string]string{}
	for _, seed := range []string{"", "a", "ab"} {
		for _, name := range []string{"default", "lab", "b"} {
			got := BridgeMAC(seed, name)
			if got.String() != BridgeMAC(seed, name).String() || len(got) != 6 || got[0]&3 != 2 {
				t.Errorf("%q, %q: %s isn't stable, locally administered and unicast", seed, name, got)
			}
			if other, ok := seen[got.String()]; ok {
				t.Errorf("%q, %q has the MAC of %s", seed, name, other)
			}
			seen[got.String()] = fmt.Sprintf("%q, %q", seed, name)
		}
	}
	// It must never change: guests' ARP caches and NetworkManager know the bridge by it.
	if got, want := BridgeMAC("seed", "default").String(), "c6:de:53:3d:d9:50"; got != want {
		t.Errorf("MAC %s, want %s", got, want)
	}
}

func TestKindOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want ErrorKind
	}{
		{nil, Failed},
		{io.EOF, Failed},
		{Errorf(InUse, "x"), InUse},
		{fmt.Errorf("cannot y: %w", fmt.Errorf("z: %w", Errorf(NoSuchNetwork, "x"))), NoSuchNetwork},
		{fmt.Errorf("cannot y: %v", Errorf(NoSuchNetwork, "x")), Failed},
		{errors.Join(io.EOF, SettingErrorf("mtu", "x"), Errorf(InUse, "y")), InvalidSetting},
	} {
		if got := KindOf(test.err); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
	err := SettingErrorf("mtu", "%d is odd", 3)
	if err.Error() != `setting "mtu": 3 is odd` || err.Key != "mtu" || err.Kind != InvalidSetting {
		t.Errorf("%+v", err)
	}
	if err := Errorf(InUse, "port %q", "a"); err.Error() != `port "a"` || err.Key != "" {
		t.Errorf("%+v", err)
	}
}

func TestFinders(t *testing.T) {
	snapshot := Snapshot{Networks: []NetworkState{{Name: "a"}, {Name: "b", Bridge: "gway1"}},
		Uplinks: []UplinkState{{Uplink: Uplink{Interface: "wlan0"}, Primary: true}}}
	if n, ok := snapshot.Network("b"); !ok || n.Bridge != "gway1" {
		t.Errorf("network b: %+v, %v", n, ok)
	}
	if u, ok := snapshot.Uplink("wlan0"); !ok || !u.Primary {
		t.Errorf("uplink wlan0: %+v, %v", u, ok)
	}
	uplinks := Uplinks{List: []Uplink{{Interface: "wlan0", Index: 3}}}
	if u, ok := uplinks.Find("wlan0"); !ok || u.Index != 3 {
		t.Errorf("Find: %+v, %v", u, ok)
	}
	kernel := Kernel{Links: []Link{{Index: 1, Name: "lo"}, {Index: 7, Name: "gway0"}}}
	if l, ok := kernel.LinkByName("gway0"); !ok || l.Index != 7 {
		t.Errorf("LinkByName: %+v, %v", l, ok)
	}
	if l, ok := kernel.LinkByIndex(7); !ok || l.Name != "gway0" {
		t.Errorf("LinkByIndex: %+v, %v", l, ok)
	}
	_, network := snapshot.Network("c")
	_, uplink := snapshot.Uplink("")
	_, found := uplinks.Find("")
	_, byName := kernel.LinkByName("")
	_, byIndex := kernel.LinkByIndex(0)
	if slices.Contains([]bool{network, uplink, found, byName, byIndex}, true) {
		t.Error("found what isn't there")
	}
}
