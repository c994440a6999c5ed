package message

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPrefixes(t *testing.T) {
	const day, la = 86400, 0xc0
	infinite := uint32(0xffffffff)
	short := pio("2001:db8::/64", la, day, day)[:24]
	short[1] = 3
	long := append(pio("2001:db8::/64", la, day, day), make([]byte, 8)...)
	long[1] = 5
	wide := pio("2001:db8::/64", la, day, day)
	wide[2] = 129
	tests := []struct {
		name   string
		option []byte
		want   []Prefix
	}{
		{"both", pio("2001:db8::/64", la, day, 60), []Prefix{{netip.MustParsePrefix("2001:db8::/64"), true, true, 24 * time.Hour, time.Minute}}},
		{"host bits", pio("2001:db8::1/64", 0x80, day, day), []Prefix{{netip.MustParsePrefix("2001:db8::/64"), true, false, 24 * time.Hour, 24 * time.Hour}}},
		{"infinite", pio("fd00::/64", 0x40, infinite, infinite), []Prefix{{netip.MustParsePrefix("fd00::/64"), false, true, Infinity, Infinity}}},
		{"valid infinite", pio("fd00::/64", 0x40, infinite, 1), []Prefix{{netip.MustParsePrefix("fd00::/64"), false, true, Infinity, time.Second}}},
		{"ended", pio("fd00::/64", 0, 0, 0), []Prefix{{netip.MustParsePrefix("fd00::/64"), false, false, 0, 0}}},
		{"one host", pio("2001:db8::1/128", 0x80, day, 0), []Prefix{{netip.MustParsePrefix("2001:db8::1/128"), true, false, 24 * time.Hour, 0}}},
		{"all of the internet", pio("2000::/3", 0x80, day, 0), []Prefix{{netip.MustParsePrefix("2000::/3"), true, false, 24 * time.Hour, 0}}},
		{"longer than it should be", long, []Prefix{{netip.MustParsePrefix("2001:db8::/64"), true, true, 24 * time.Hour, 24 * time.Hour}}},
		{"preferred longer than valid", pio("2001:db8::/64", la, day, day+1), nil},
		{"preferred for ever", pio("2001:db8::/64", la, day, infinite), nil},
		{"link-local", pio("fe80::/64", la, day, day), nil},
		{"link-local and others", pio("fe00::/8", la, day, day), nil},
		{"group", pio("ff0e::/64", la, day, day), nil},
		{"everything", pio("::/0", la, day, day), nil},
		{"half of everything", pio("8000::/1", la, day, day), nil},
		{"loopback", pio("::1/128", la, day, day), nil},
		{"IPv4-mapped", pio("::ffff:10.0.0.0/104", la, day, day), nil},
		{"129 bits", wide, nil},
		{"shorter than it should be", short, nil},
		{"another option", lasting(24, day, "\x20\x01\x0d\xb8\x00\x00\x00\x00"), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := body(t, advertise(test.option)).Prefixes()
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}
