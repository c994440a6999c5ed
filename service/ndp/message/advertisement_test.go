package message

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func summary(ra *RouterAdvertisement) string {
	mac, ok := ra.SourceLinkLayer()
	text := fmt.Sprintf("from %s %s (%s %v) hops %d managed %v other %v preference %d lifetime %s reachable %s retrans %s mtu %d",
		ra.From, ra.MAC, mac, ok, ra.CurHopLimit(), ra.Managed(), ra.Other(), ra.Preference(), ra.RouterLifetime(),
		ra.ReachableTime(), ra.RetransTimer(), ra.MTU())
	for _, p := range ra.Prefixes() {
		text += fmt.Sprintf("\n%s on-link %v autonomous %v valid %s preferred %s", p.Prefix, p.OnLink, p.Autonomous, p.Valid, p.Preferred)
	}
	for kind, option := range ra.Options() {
		text += fmt.Sprintf("\noption %d of %d", kind, len(option))
	}
	return text
}

// What radvd and dnsmasq were configured to say, read by tcpdump as the same.
func TestRealAdvertisements(t *testing.T) {
	tests := map[string]string{
		"radvd": `from fe80::ff:fe00:501 02:00:00:00:05:01 (02:00:00:00:05:01 true) hops 64 managed false other true preference 1 lifetime 30m0s reachable 30s retrans 1s mtu 1480
2001:db8:5:1::/64 on-link true autonomous true valid 24h0m0s preferred 4h0m0s
fd00:5:1::/64 on-link false autonomous true valid 1193046h28m15s preferred 1193046h28m15s
option 3 of 32
option 3 of 32
option 24 of 24
option 24 of 24
option 25 of 40
option 31 of 40
option 5 of 8
option 1 of 8
option 7 of 8`,
		"radvd-final": `from fe80::ff:fe00:501 02:00:00:00:05:01 (02:00:00:00:05:01 true) hops 64 managed false other true preference 0 lifetime 0s reachable 30s retrans 1s mtu 1480
2001:db8:5:1::/64 on-link true autonomous true valid 24h0m0s preferred 4h0m0s
fd00:5:1::/64 on-link false autonomous true valid 1193046h28m15s preferred 1193046h28m15s
option 3 of 32
option 3 of 32
option 24 of 24
option 24 of 24
option 25 of 40
option 31 of 40
option 5 of 8
option 1 of 8
option 7 of 8`,
		"dnsmasq": `from fe80::ff:fe00:501 02:00:00:00:05:01 (02:00:00:00:05:01 true) hops 64 managed true other true preference 1 lifetime 30m0s reachable 0s retrans 0s mtu 1480
fd00:5:1::/64 on-link true autonomous true valid 1h0m0s preferred 1h0m0s
2001:db8:5:1::/64 on-link true autonomous true valid 1h0m0s preferred 1h0m0s
option 3 of 32
option 3 of 32
option 5 of 8
option 1 of 8
option 31 of 24
option 25 of 40`,
	}
	for name, want := range tests {
		ra := heard(t, name)
		if diff := cmp.Diff(want, summary(ra)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if !bytes.Equal(ra.Body(), captured(t, name)[54:]) {
			t.Errorf("%s: the body isn't what was received: %x", name, ra.Body())
		}
		kept, err := ParseBody(ra.Body(), ra.From, ra.MAC)
		if err != nil || summary(kept) != want {
			t.Errorf("%s: from its body: %v\n%s", name, err, summary(kept))
		}
	}
}

// dnsmasq speaks from a global address while the link-local one is tentative. Hosts discard that.
func TestRealAdvertisementFromGlobalAddress(t *testing.T) {
	_, err := ParseRouterAdvertisement(parsed(t, captured(t, "dnsmasq-global")))
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "link-local") || !strings.Contains(err.Error(), `"2001:db8:5:1::1"`) {
		t.Error(err)
	}
}

// RFC 4861 6.1.2, clause by clause.
func TestValidationOfRouterAdvertisements(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Frame)
		want   error
	}{
		{"as is", func(*Frame) {}, nil},
		{"no options", func(f *Frame) { f.ICMP = f.ICMP[:16] }, nil},
		{"an unknown option", func(f *Frame) { f.ICMP = append(f.ICMP[:16], 200, 1, 0, 0, 0, 0, 0, 0) }, nil},
		{"flags and fields that are unknown", func(f *Frame) { f.ICMP[5] = 0xff }, nil},
		{"at the end of fe80::/10", func(f *Frame) { f.From = netip.MustParseAddr("febf::1") }, nil},
		{"behind fe80::/10", func(f *Frame) { f.From = netip.MustParseAddr("fec0::1") }, ErrInvalid},
		{"unspecified source", func(f *Frame) { f.From = netip.IPv6Unspecified() }, ErrInvalid},
		{"no source", func(f *Frame) { f.From = netip.Addr{} }, ErrInvalid},
		{"hop limit 254", func(f *Frame) { f.HopLimit = 254 }, ErrInvalid},
		{"code 1", func(f *Frame) { f.ICMP[1] = 1 }, ErrInvalid},
		{"15 bytes", func(f *Frame) { f.ICMP = f.ICMP[:15] }, ErrInvalid},
		{"nothing", func(f *Frame) { f.ICMP = nil }, ErrInvalid},
		{"option without a length", func(f *Frame) { f.ICMP[17] = 0 }, ErrInvalid},
		{"second option without a length", func(f *Frame) { f.ICMP[16+33] = 0 }, ErrInvalid},
		{"option longer than the message", func(f *Frame) { f.ICMP[len(f.ICMP)-7] = 2 }, ErrInvalid},
		{"half an option", func(f *Frame) { f.ICMP = f.ICMP[:len(f.ICMP)-4] }, ErrInvalid},
		{"a byte too many", func(f *Frame) { f.ICMP = append(f.ICMP, 1) }, ErrInvalid},
		{"router solicitation", func(f *Frame) { f.ICMP[0] = 133 }, ErrType},
		{"redirect", func(f *Frame) { f.ICMP[0] = 137 }, ErrType},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := parsed(t, captured(t, "radvd"))
			test.change(&f)
			ra, err := ParseRouterAdvertisement(f)
			if !errors.Is(err, test.want) || (ra != nil) != (test.want == nil) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if _, err := ParseBody(f.ICMP, f.From, f.Source); !errors.Is(err, test.want) && f.HopLimit == 255 {
				t.Errorf("as a body: %v, want %v", err, test.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "cannot parse router advertisement of ") {
				t.Error(err)
			}
		})
	}
	if _, err := ParseBody(append(advertise(), make([]byte, 65536)...), router, routerMAC); !errors.Is(err, ErrInvalid) {
		t.Errorf("a body that fits no packet: %v", err)
	}
	long := advertise()
	for len(long)+8 <= 65535 {
		long = append(long, 200, 1, 0, 0, 0, 0, 0, 0)
	}
	body(t, long)
	if _, err := ParseBody(append(long, 200, 1, 0, 0, 0, 0, 0, 0), router, routerMAC); !errors.Is(err, ErrInvalid) {
		t.Errorf("a body that fits no packet: %v", err)
	}
}

func TestAdvertisementKeepsNothingOfTheFrame(t *testing.T) {
	b := captured(t, "radvd")
	ra, err := ParseRouterAdvertisement(parsed(t, b))
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	clear(ra.Body())
	if want := heard(t, "radvd"); summary(ra) != summary(want) {
		t.Error(summary(ra))
	}
	if ra := body(t, advertise()); ra.From != router || body(t, advertise()).MAC != routerMAC {
		t.Error(summary(ra))
	}
	zoned, err := ParseBody(advertise(), router.WithZone("eth0"), routerMAC)
	if err != nil || zoned.From != router {
		t.Errorf("%v, %v", zoned, err)
	}
}

func TestPreference(t *testing.T) {
	for bits, want := range []Preference{Medium, High, Medium, Low} { // 2 is reserved (RFC 4191 2.2)
		b := advertise()
		b[5] = byte(bits)<<3 | 0xe7
		if got := body(t, b).Preference(); got != want {
			t.Errorf("%02b is %d", bits, got)
		}
		b[6], b[7] = 0, 0
		if got := body(t, b).Preference(); got != Medium {
			t.Errorf("%02b of none is %d", bits, got)
		}
	}
}

func TestOptionsOfWrongLengthAndDuplicates(t *testing.T) {
	mtu := []byte{5, 1, 0, 0, 0, 0, 5, 0xdc}
	source := func(last byte) []byte { return []byte{1, 1, 2, 0, 0, 0, 0, last} }
	long := func(kind byte) []byte { return append([]byte{kind, 2}, "other contents"...) }
	tests := []struct {
		name string
		body []byte
		mtu  uint32
		mac  MAC
		ok   bool
	}{
		{"none", advertise(), 0, MAC{}, false},
		{"one", advertise(mtu, source(1)), 1500, MAC{2, 0, 0, 0, 0, 1}, true},
		{"two", advertise(source(1), mtu, []byte{5, 1, 0, 0, 0, 0, 1, 1}, source(2)), 1500, MAC{2, 0, 0, 0, 0, 1}, true},
		{"too long", advertise(long(5), long(1)), 0, MAC{}, false},
		{"the target's", advertise([]byte{2, 1, 2, 0, 0, 0, 0, 9}), 0, MAC{}, false},
	}
	for _, test := range tests {
		ra := body(t, test.body)
		mac, ok := ra.SourceLinkLayer()
		if ra.MTU() != test.mtu || mac != test.mac || ok != test.ok {
			t.Errorf("%s: %d %s %v", test.name, ra.MTU(), mac, ok)
		}
	}
}

func TestOptionsCanBeLeft(t *testing.T) {
	for kind := range heard(t, "radvd").Options() {
		if kind != 3 {
			t.Errorf("first is %d", kind)
		}
		break
	}
}

func TestAdvertisementFrame(t *testing.T) {
	ra := heard(t, "radvd")
	given := ra.Announcement(0, 0)
	f := AdvertisementFrame(ra.From.WithZone("eth0"), ra.MAC, AllNodes, Multicast(AllNodes), given)
	clear(given)
	want := captured(t, "radvd")
	want[14], want[15], want[16], want[17] = 0x60, 0, 0, 0
	if got := f.Marshal(); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}
