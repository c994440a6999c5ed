package message

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// Frames of real senders come back as they were, but for traffic class and flow label.
func TestMarshalIsWhatWasCaptured(t *testing.T) {
	entries, err := os.ReadDir("testdata/frames")
	if err != nil || len(entries) < 9 {
		t.Fatal(len(entries), err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".hex")
		t.Run(name, func(t *testing.T) {
			want := captured(t, name)
			f := parsed(t, slices.Clone(want))
			want[14], want[15], want[16], want[17] = 0x60, 0, 0, 0
			if got := f.Marshal(); !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
			f.ICMP[2], f.ICMP[3] = 0xba, 0xad // what it was is of no matter
			if got := f.Marshal(); !bytes.Equal(got, want) {
				t.Errorf("with a wrong checksum: got  %x\nwant %x", got, want)
			}
			if f.ICMP[2] != 0xba {
				t.Error("Marshal wrote to the frame")
			}
		})
	}
}

func TestParseFrame(t *testing.T) {
	f := parsed(t, captured(t, "linux-ns"))
	if f.Source.String() != "52:8c:e6:e1:a1:95" || f.Destination.String() != "33:33:ff:00:00:01" || f.HopLimit != 255 ||
		f.From != netip.MustParseAddr("2001:db8:5:1:508c:e6ff:fee1:a195") || f.To != netip.MustParseAddr("ff02::1:ff00:1") ||
		f.Type() != TypeNeighborSolicitation || len(f.ICMP) != 32 {
		t.Errorf("%+v", f)
	}
	if kind := (Frame{}).Type(); kind != 0 {
		t.Errorf("nothing has type %d", kind)
	}
}

func TestParseFrameRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func([]byte) []byte
		want   error
	}{
		{"empty", func([]byte) []byte { return nil }, ErrTruncated},
		{"less than Ethernet", func(b []byte) []byte { return b[:13] }, ErrTruncated},
		{"less than IPv6", func(b []byte) []byte { return b[:53] }, ErrTruncated},
		{"less than its payload", func(b []byte) []byte { return b[:len(b)-1] }, ErrTruncated},
		{"payload longer", func(b []byte) []byte { b[19]++; return b }, ErrTruncated},
		{"payload shorter", func(b []byte) []byte { b[19]--; return b }, ErrChecksum},
		{"no payload", func(b []byte) []byte { b[19] = 0; return b }, ErrTruncated},
		{"three bytes of payload", func(b []byte) []byte { b[19] = 3; return b }, ErrTruncated},
		{"one byte of an extension header", func(b []byte) []byte { b[19], b[20] = 1, 60; return b }, ErrTruncated},
		{"IPv4", func(b []byte) []byte { b[12], b[13] = 8, 0; return b }, ErrNotICMP},
		{"VLAN", func(b []byte) []byte { return slices.Insert(b, 12, 0x81, 0, 0, 5) }, ErrNotICMP},
		{"IP version 4", func(b []byte) []byte { b[14] = 0x45; return b }, ErrNotICMP},
		{"ICMP of IPv4", func(b []byte) []byte { b[20] = 1; return b }, ErrNotICMP},
		{"source changed", func(b []byte) []byte { b[37] ^= 1; return b }, ErrChecksum},
		{"destination changed", func(b []byte) []byte { b[53] ^= 1; return b }, ErrChecksum},
		{"message changed", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, ErrChecksum},
		{"checksum 0", func(b []byte) []byte { b[56], b[57] = 0, 0; return b }, ErrChecksum},
		{"from a group's MAC", func(b []byte) []byte { b[6] |= 1; return b }, ErrInvalid},
		{"from a group", func(b []byte) []byte { b[22], b[23] = 0xff, 2; return mend(b) }, ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, err := ParseFrame(test.change(captured(t, "linux-rs")))
			if !errors.Is(err, test.want) || f.ICMP != nil {
				t.Errorf("%+v, %v, want %v", f, err, test.want)
			}
		})
	}
}

// Short frames are padded by the sender's card with anything.
func TestPaddingIsCut(t *testing.T) {
	b := captured(t, "linux-na-bare")
	f := parsed(t, append(b, "padding"...))
	if !bytes.Equal(f.ICMP, b[54:]) || cap(f.ICMP) < len(f.ICMP) {
		t.Errorf("%x", f.ICMP)
	}
}

// A message of odd length counts as one with a zero more (RFC 1071).
func TestChecksumOfOddLength(t *testing.T) {
	f := Frame{Source: guestMAC, From: guest, To: AllNodes, ICMP: []byte{128, 0, 0, 0, 1, 2, 0xfe}}
	b := f.Marshal()
	if got := parsed(t, b); got.ICMP[6] != 0xfe {
		t.Errorf("%+v", got)
	}
	if !bytes.Equal(mend(b), b) {
		t.Errorf("%x, want %x", b, mend(b))
	}
}

// What is 0 after all is sent as 0, and what adds up to 0xffff is right in both forms.
func TestChecksumZero(t *testing.T) {
	f := Frame{Source: guestMAC, From: guest, To: AllNodes, ICMP: []byte{128, 0, 0, 0, 0, 0, 0, 0}}
	sum := f.Marshal()[56:58]
	copy(f.ICMP[4:], sum)
	b := f.Marshal()
	if b[56] != 0 || b[57] != 0 {
		t.Fatalf("checksum %x", b[56:58])
	}
	parsed(t, b)
	b[56], b[57] = 0xff, 0xff
	parsed(t, b)
}

func TestMarshalPanicsOnWhatIsNoMessage(t *testing.T) {
	for _, n := range []int{0, 3, 65536} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d bytes were marshalled", n)
				}
			}()
			Frame{ICMP: make([]byte, n)}.Marshal()
		}()
	}
	if b := (Frame{ICMP: make([]byte, 65535)}).Marshal(); b[18] != 0xff || b[19] != 0xff {
		t.Errorf("%x", b[18:20])
	}
}
