package message

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// RFC 4861 6.1.1, clause by clause.
func TestValidationOfRouterSolicitations(t *testing.T) {
	unspecified := func(f *Frame) { f.From = netip.IPv6Unspecified() }
	tests := []struct {
		name   string
		change func(*Frame)
		want   error
	}{
		{"as is", func(*Frame) {}, nil},
		{"from a global address", func(f *Frame) { f.From = guest }, nil},
		{"no options", func(f *Frame) { f.ICMP = f.ICMP[:8] }, nil},
		{"unspecified, no options", func(f *Frame) { unspecified(f); f.ICMP = f.ICMP[:8] }, nil},
		{"unspecified, an unknown option", func(f *Frame) { unspecified(f); f.ICMP[8] = 200 }, nil},
		{"unspecified, with a link-layer address", unspecified, ErrInvalid},
		{"hop limit 64", func(f *Frame) { f.HopLimit = 64 }, ErrInvalid},
		{"code 1", func(f *Frame) { f.ICMP[1] = 1 }, ErrInvalid},
		{"7 bytes", func(f *Frame) { f.ICMP = f.ICMP[:7] }, ErrInvalid},
		{"option without a length", func(f *Frame) { f.ICMP[9] = 0 }, ErrInvalid},
		{"option longer than the message", func(f *Frame) { f.ICMP[9] = 2 }, ErrInvalid},
		{"router advertisement", func(f *Frame) { f.ICMP[0] = 134 }, ErrType},
		{"nothing", func(f *Frame) { f.ICMP = nil }, ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := parsed(t, captured(t, "linux-rs"))
			test.change(&f)
			s, err := ParseRouterSolicitation(f)
			if !errors.Is(err, test.want) || (s != nil) != (test.want == nil) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "cannot parse router solicitation of ") {
				t.Error(err)
			}
			if err == nil && (s.From != f.From || s.MAC.String() != "52:8c:e6:e1:a1:95") {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Ours are what Linux sends.
func TestRouterSolicitation(t *testing.T) {
	want := captured(t, "linux-rs")
	f := parsed(t, want)
	if got := RouterSolicitation(f.From.WithZone("eth0"), f.Source).Marshal(); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	for _, from := range []netip.Addr{{}, netip.IPv6Unspecified()} {
		got := parsed(t, RouterSolicitation(from, guestMAC).Marshal())
		if len(got.ICMP) != 8 || got.From != netip.IPv6Unspecified() || got.To != AllRouters {
			t.Errorf("of %v: %+v", from, got)
		}
		if _, err := ParseRouterSolicitation(got); err != nil {
			t.Error(err)
		}
	}
}
