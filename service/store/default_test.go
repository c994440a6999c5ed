package store

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gangway/service/vnet"
)

func ensured(t *testing.T, l *lab) []Definition {
	t.Helper()
	s := l.open(t)
	if err := s.EnsureDefault(); err != nil {
		t.Fatal(err)
	}
	return definitions(t, s)
}

func TestDefaultNetworkIsDefinedOnce(t *testing.T) {
	l := newLab(t)
	want := vnet.DefaultSettings("default")
	want.Bridge = "gway0"
	for range 2 {
		list := ensured(t, l)
		if len(list) != 1 || list[0].Name != "default" || !reflect.DeepEqual(list[0].Settings, want) {
			t.Fatalf("defined %+v, want default with %+v", list, want)
		}
	}
	if err := l.open(t).Delete("default"); err != nil {
		t.Fatal(err)
	}
	if list := ensured(t, l); len(list) != 0 {
		t.Errorf("after it was deleted, defined again: %+v", list)
	}
}

func TestDefaultNetworkThatIsThereStays(t *testing.T) {
	for name, text := range map[string]string{"by hand": "bridge = \"mine\"\n", "broken": "bridge = \n"} {
		l := newLab(t)
		l.write(t, "default.toml", text)
		ensured(t, l)
		got, err := os.ReadFile(filepath.Join(l.ConfigDir, "networks", "default.toml"))
		if err != nil || string(got) != text {
			t.Errorf("%s: became %q (%v)", name, got, err)
		}
		if err := l.open(t).Delete("default"); err != nil {
			t.Fatal(err)
		}
		if list := ensured(t, l); len(list) != 0 {
			t.Errorf("%s: after it was deleted, defined again: %+v", name, list)
		}
	}
}

func TestDefaultNetworkTakesAFreeBridge(t *testing.T) {
	l := newLab(t)
	l.write(t, "a.toml", "bridge = \"gway0\"\n")
	l.write(t, "b.toml", "bridge = \"gway1\"\n")
	if list := ensured(t, l); len(list) != 3 || list[2].Settings.Bridge != "gway2" {
		t.Errorf("defined %+v, want default on gway2", list)
	}
}

func TestDefaultNetworkOfATemplate(t *testing.T) {
	l := newLab(t)
	l.DataDir = t.TempDir()
	template := filepath.Join(l.DataDir, "default.toml")
	if err := os.WriteFile(template, []byte("mtu = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := l.open(t).EnsureDefault()
	if err == nil || !strings.Contains(err.Error(), template) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("with a broken template: %v, want an error that names file and line", err)
	}
	if err := os.WriteFile(template, []byte("mtu = 1400\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	list := ensured(t, l)
	if len(list) != 1 || list[0].Settings.MTU != 1400 || list[0].Settings.Bridge != "gway0" {
		t.Errorf("defined %+v, want the template's MTU and gway0", list)
	}

	l = newLab(t)
	l.DataDir = filepath.Join(t.TempDir(), "absent")
	if list := ensured(t, l); len(list) != 1 || list[0].Settings.Bridge != "gway0" {
		t.Errorf("without a template, defined %+v", list)
	}
}

// What we install is what EnsureDefault does without a template, so that it is found
// and changed by whoever makes a distribution.
func TestInstalledTemplate(t *testing.T) {
	settings, err := load("../../data/default.toml", "default")
	want := vnet.DefaultSettings("default")
	want.Bridge = "gway0"
	if err != nil || !reflect.DeepEqual(settings, want) {
		t.Errorf("data/default.toml: %+v, %v; want %+v", settings, err, want)
	}
}
