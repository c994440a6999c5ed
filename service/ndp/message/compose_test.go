package message

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCompose(t *testing.T) {
	rdnss := lasting(25, 600, "0123456789abcdef")
	h := Header{CurHopLimit: 64, RouterLifetime: 1800*time.Second + 999*time.Millisecond, RetransTimer: 100 * time.Millisecond}
	p := Prefix{Prefix: netip.MustParsePrefix("2001:db8::1/64"), Autonomous: true, Valid: time.Hour, Preferred: 30 * time.Minute}
	got := Compose(h, [][]byte{SourceLinkLayerOption(routerMAC), rdnss, p.Option(), MTUOption(1400)})
	want := advertise(pio("2001:db8::/64", 0x40, 3600, 1800), []byte{1, 1, 2, 0, 0, 0, 5, 1}, rdnss, []byte{5, 1, 0, 0, 0, 0, 5, 0x78})
	want[15] = 100
	if len(got) != 1 || !bytes.Equal(got[0], want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	ra := body(t, got[0])
	if mac, ok := ra.SourceLinkLayer(); !ok || mac != routerMAC || ra.MTU() != 1400 || len(ra.Prefixes()) != 1 {
		t.Errorf("%s", said(got[0]))
	}
	p = Prefix{Prefix: netip.MustParsePrefix("2001:db8::/64"), OnLink: true, Valid: 2 * Infinity, Preferred: -1}
	if got, want := p.Option(), pio("2001:db8::/64", 0x80, 0xffffffff, 0); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if got := Compose(Header{RouterLifetime: 70000 * time.Second}, nil); len(got) != 1 || said(got[0]) != "65535/00/0" {
		t.Errorf("%s", said(got[0]))
	}
}

// Whatever is to be said is said in packets that every link carries, prefixes first, all in its order.
func TestComposeSplits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var options [][]byte
		for range rapid.IntRange(0, 80).Draw(t, "count") {
			o := drawnOption.Draw(t, "option")
			if rapid.IntRange(0, 30).Draw(t, "large") == 0 {
				o = append(o, make([]byte, 2040-len(o))...)
				o[0], o[1] = 200, 255
			}
			options = append(options, o)
		}
		bodies := Compose(Header{RouterLifetime: time.Minute}, options)
		var got, want [][]byte
		for i, b := range bodies {
			ra, err := ParseBody(b, router, routerMAC)
			if err != nil || len(b) > 1240 || ra.RouterLifetime() != time.Minute || len(bodies) > 1 && len(b) == 16 {
				t.Fatalf("%d. of %d: %d bytes, %v", i, len(bodies), len(b), err)
			}
			for _, o := range ra.Options() {
				got = append(got, o)
			}
		}
		for _, prefix := range []bool{true, false} {
			for _, o := range options {
				if (o[0] == 3) == prefix && len(o) <= 1224 {
					want = append(want, o)
				}
			}
		}
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("got  %x\nwant %x", got, want)
		}
	})
}
