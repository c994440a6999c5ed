package dbus

import (
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

// The examples are what systemd's bus_label_escape makes of the names.
func TestEscapeLabel(t *testing.T) {
	for name, want := range map[string]string{
		"": "_", "default": "default", "a-b": "a_2db", "4g": "_34g", "wlan0": "wlan0", "a_b": "a_5fb",
		"br.7": "br_2e7", "../x": "_2e_2e_2fx", "ä": "_c3_a4", "_": "_5f", "\x00": "_00",
	} {
		if got := EscapeLabel(name); got != want {
			t.Errorf("EscapeLabel(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestUnescapeLabelIsStrict(t *testing.T) {
	for _, label := range []string{"", "_6", "_61", "a_", "a-b", "4g", "_2D", "_zz", "__", "a_2d_"} {
		if name, err := UnescapeLabel(label); err == nil {
			t.Errorf("UnescapeLabel(%q) = %q", label, name)
		}
	}
}

func FuzzLabel(f *testing.F) {
	for _, s := range []string{"", "_", "a-b", "4g", "_2d", "\xff", "_5f_", "a_2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		label := EscapeLabel(s)
		if !godbus.ObjectPath("/" + label).IsValid() {
			t.Fatalf("EscapeLabel(%q) = %q is no path element", s, label)
		}
		if back, err := UnescapeLabel(label); err != nil || back != s {
			t.Fatalf("%q escaped and back is %q, %v", s, back, err)
		}
		if name, err := UnescapeLabel(s); err == nil && EscapeLabel(name) != s {
			t.Fatalf("UnescapeLabel(%q) = %q, which escapes to %q", s, name, EscapeLabel(name))
		}
	})
}
