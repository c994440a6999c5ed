package message

import (
	"net/netip"
	"testing"
)

func TestMAC(t *testing.T) {
	m, err := ParseMAC("02:00:5E:aB:00:0f")
	if err != nil || m != (MAC{2, 0, 0x5e, 0xab, 0, 0x0f}) || m.String() != "02:00:5e:ab:00:0f" || m.IsMulticast() {
		t.Errorf("%s, %v", m, err)
	}
	for _, text := range []string{"", "02:00:5e:ab:00", "02:00:5e:ab:00:0f:01", "02:00:5e:ab:00:0g", "2:0:5e:ab:0:f", "02-00-5e-ab-00-0f", "02:00:5e:ab:00:", "02:00:5e:ab:000:f", " 02:00:5e:ab:00:0f"} {
		if m, err := ParseMAC(text); err == nil || m != (MAC{}) {
			t.Errorf("%q is %s", text, m)
		}
	}
	for group, want := range map[string]string{"ff02::1": "33:33:00:00:00:01", "ff02::2": "33:33:00:00:00:02", "ff02::1:ff12:3456": "33:33:ff:12:34:56"} {
		if m := Multicast(netip.MustParseAddr(group)); m.String() != want || !m.IsMulticast() {
			t.Errorf("%s: %s", group, m)
		}
	}
	if !(MAC{255, 255, 255, 255, 255, 255}).IsMulticast() {
		t.Error("everybody is no group")
	}
}
