package message

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestRealNeighborSolicitations(t *testing.T) {
	asks, err := ParseNeighborSolicitation(parsed(t, captured(t, "linux-ns")))
	if err != nil || asks.Duplicate() || asks.From.String() != "2001:db8:5:1:508c:e6ff:fee1:a195" || asks.To.String() != "ff02::1:ff00:1" ||
		asks.Target.String() != "2001:db8:5:1::1" || asks.LinkLayer != asks.MAC || asks.MAC.String() != "52:8c:e6:e1:a1:95" || asks.Nonce != nil {
		t.Errorf("%+v, %v", asks, err)
	}
	b := captured(t, "linux-ns-dad")
	dad, err := ParseNeighborSolicitation(parsed(t, b))
	clear(b)
	if err != nil || !dad.Duplicate() || dad.From != netip.IPv6Unspecified() || dad.To.String() != "ff02::1:ffe1:a195" ||
		dad.Target.String() != "fe80::508c:e6ff:fee1:a195" || dad.LinkLayer != (MAC{}) || hex.EncodeToString(dad.Nonce) != "3f18299c81f3" {
		t.Errorf("%+v, %v", dad, err)
	}
}

func TestRealNeighborAdvertisements(t *testing.T) {
	tells, err := ParseNeighborAdvertisement(parsed(t, captured(t, "linux-na")))
	if err != nil || tells.From.String() != "2001:db8:5:1::1" || tells.Target != tells.From || !tells.Router || !tells.Solicited ||
		!tells.Override || tells.LinkLayer != routerMAC || tells.MAC != routerMAC || tells.To.String() != "2001:db8:5:1:508c:e6ff:fee1:a195" {
		t.Errorf("%+v, %v", tells, err)
	}
	bare, err := ParseNeighborAdvertisement(parsed(t, captured(t, "linux-na-bare")))
	if err != nil || bare.Router || !bare.Solicited || bare.Override || bare.LinkLayer != (MAC{}) || bare.MAC.String() != "0e:c4:52:c7:61:87" {
		t.Errorf("%+v, %v", bare, err)
	}
}

// RFC 4861 7.1.1, clause by clause.
func TestValidationOfNeighborSolicitations(t *testing.T) {
	const asks, dad = "linux-ns", "linux-ns-dad"
	tests := []struct {
		name, frame string
		change      func(*Frame)
		want        error
	}{
		{"as is", asks, func(*Frame) {}, nil},
		{"no options", asks, func(f *Frame) { f.ICMP = f.ICMP[:24] }, nil},
		{"to the target itself", asks, func(f *Frame) { f.To = netip.MustParseAddr("2001:db8:5:1::1") }, nil},
		{"unspecified", dad, func(*Frame) {}, nil},
		{"unspecified, no options", dad, func(f *Frame) { f.ICMP = f.ICMP[:24] }, nil},
		{"unspecified, another's solicited-node group", dad, func(f *Frame) { f.To = netip.MustParseAddr("ff02::1:ff00:1") }, nil},
		{"unspecified to all nodes", dad, func(f *Frame) { f.To = AllNodes }, ErrInvalid},
		{"unspecified to the target", dad, func(f *Frame) { f.To = netip.MustParseAddr("fe80::508c:e6ff:fee1:a195") }, ErrInvalid},
		{"unspecified, with a link-layer address", dad, func(f *Frame) { f.ICMP[24] = 1 }, ErrInvalid},
		{"unspecified, with one behind the nonce", dad, func(f *Frame) { f.ICMP = append(f.ICMP, 1, 1, 2, 0, 0, 0, 0, 1) }, ErrInvalid},
		{"target is a group", asks, func(f *Frame) { f.ICMP[8] = 0xff }, ErrInvalid},
		{"hop limit 254", asks, func(f *Frame) { f.HopLimit = 254 }, ErrInvalid},
		{"code 1", asks, func(f *Frame) { f.ICMP[1] = 1 }, ErrInvalid},
		{"23 bytes", asks, func(f *Frame) { f.ICMP = f.ICMP[:23] }, ErrInvalid},
		{"option without a length", asks, func(f *Frame) { f.ICMP[25] = 0 }, ErrInvalid},
		{"option longer than the message", asks, func(f *Frame) { f.ICMP[25] = 2 }, ErrInvalid},
		{"an advertisement", asks, func(f *Frame) { f.ICMP[0] = 136 }, ErrType},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := parsed(t, captured(t, test.frame))
			test.change(&f)
			s, err := ParseNeighborSolicitation(f)
			if !errors.Is(err, test.want) || (s != nil) != (test.want == nil) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "cannot parse neighbour solicitation of ") {
				t.Error(err)
			}
		})
	}
}

// RFC 4861 7.1.2, clause by clause.
func TestValidationOfNeighborAdvertisements(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Frame)
		want   error
	}{
		{"as is", func(*Frame) {}, nil},
		{"no options", func(f *Frame) { f.ICMP = f.ICMP[:24] }, nil},
		{"unsolicited to all", func(f *Frame) { f.To, f.ICMP[4] = AllNodes, 0xa0 }, nil},
		{"solicited to all", func(f *Frame) { f.To = AllNodes }, ErrInvalid},
		{"target is a group", func(f *Frame) { f.ICMP[8] = 0xff }, ErrInvalid},
		{"hop limit 1", func(f *Frame) { f.HopLimit = 1 }, ErrInvalid},
		{"code 1", func(f *Frame) { f.ICMP[1] = 1 }, ErrInvalid},
		{"23 bytes", func(f *Frame) { f.ICMP = f.ICMP[:23] }, ErrInvalid},
		{"option without a length", func(f *Frame) { f.ICMP[25] = 0 }, ErrInvalid},
		{"option longer than the message", func(f *Frame) { f.ICMP[25] = 2 }, ErrInvalid},
		{"a solicitation", func(f *Frame) { f.ICMP[0] = 135 }, ErrType},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := parsed(t, captured(t, "linux-na"))
			test.change(&f)
			a, err := ParseNeighborAdvertisement(f)
			if !errors.Is(err, test.want) || (a != nil) != (test.want == nil) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "cannot parse neighbour advertisement of ") {
				t.Error(err)
			}
		})
	}
}

// A nonce may be longer than Linux makes it (RFC 3971 5.3.2), and the first of an option counts.
func TestOptionsOfNeighbors(t *testing.T) {
	f := parsed(t, captured(t, "linux-ns-dad"))
	f.ICMP = append(f.ICMP[:24], unhex(t, "0e02 0102030405060708090a0b0c0d0e 0e01 ffffffffffff")...)
	s, err := ParseNeighborSolicitation(f)
	if err != nil || hex.EncodeToString(s.Nonce) != "0102030405060708090a0b0c0d0e" {
		t.Errorf("%+v, %v", s, err)
	}
	f = parsed(t, captured(t, "linux-na"))
	f.ICMP = append(f.ICMP[:24], unhex(t, "0101 020000000001 0201 020000000002 0201 020000000003")...)
	a, err := ParseNeighborAdvertisement(f)
	if err != nil || a.LinkLayer != (MAC{2, 0, 0, 0, 0, 2}) {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestUnsolicitedAdvertisement(t *testing.T) {
	ours := UnsolicitedAdvertisement(guest.WithZone("eth0"), guestMAC)
	b := ours.Marshal()
	f := parsed(t, b)
	if ours.From != f.From || ours.To != f.To {
		t.Errorf("%+v", ours)
	}
	a, err := ParseNeighborAdvertisement(f)
	if err != nil || a.From != guest || a.Target != guest || a.To != AllNodes || a.Router || a.Solicited || !a.Override ||
		a.LinkLayer != guestMAC || a.MAC != guestMAC || f.HopLimit != 255 || f.Destination.String() != "33:33:00:00:00:01" {
		t.Errorf("%+v, %v", a, err)
	}
	if want := unhex(t, "333300000001 020000000502 86dd 60000000 0020 3a ff 20010db8000500010000000000000002 ff020000000000000000000000000001"+
		"8800 0000 20000000 20010db8000500010000000000000002 0201 020000000502"); string(mend(want)) != string(b) {
		t.Errorf("got  %x\nwant %x", b, mend(want))
	}
}
