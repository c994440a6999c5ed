package message

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("rapid.nofailfile", "true") // the seed is printed, too
	os.Exit(m.Run())
}

var (
	routerMAC = MAC{2, 0, 0, 0, 5, 1}
	guestMAC  = MAC{2, 0, 0, 0, 5, 2}
	router    = netip.MustParseAddr("fe80::ff:fe00:501")
	guest     = netip.MustParseAddr("2001:db8:5:1::2")
)

// captured returns a frame of testdata/frames, which was captured on a veth pair.
func captured(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "frames", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			b = append(b, unhex(t, line)...)
		}
	}
	return b
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parsed(t testing.TB, b []byte) Frame {
	t.Helper()
	f, err := ParseFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// heard returns the advertisement in a captured frame.
func heard(t testing.TB, name string) *RouterAdvertisement {
	t.Helper()
	ra, err := ParseRouterAdvertisement(parsed(t, captured(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return ra
}

// body parses one that never was in a frame.
func body(t testing.TB, b []byte) *RouterAdvertisement {
	t.Helper()
	ra, err := ParseBody(b, router, routerMAC)
	if err != nil {
		t.Fatalf("%v\n%x", err, b)
	}
	return ra
}

// advertise puts a router advertisement together: hop limit 64, the lifetime of 1800 s, no flags.
func advertise(options ...[]byte) []byte {
	b := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, o := range options {
		b = append(b, o...)
	}
	return b
}

func pio(prefix string, flags byte, valid, preferred uint32) []byte {
	p := netip.MustParsePrefix(prefix)
	b := []byte{3, 4, byte(p.Bits()), flags}
	b = binary.BigEndian.AppendUint32(b, valid)
	b = binary.BigEndian.AppendUint32(b, preferred)
	return append(append(b, 0, 0, 0, 0), p.Addr().AsSlice()...)
}

// lasting is an option whose lifetime follows two bytes, such as RDNSS.
func lasting(kind byte, lifetime uint32, rest string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind, byte((8 + len(rest)) / 8), 0xab, 0xcd}, lifetime)
	return append(b, rest...)
}

// pref64 is 64:ff9b::/96 as RFC 8781 has it; the lifetime is in units of 8 s.
func pref64(scaled uint16, plc byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{38, 2}, scaled<<3|uint16(plc))
	return append(b, 0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// mend puts the checksum of a frame right, if it is one whose message can be found, so that what is
// behind the checksum is tried with any bytes.
func mend(frame []byte) []byte {
	b := append([]byte(nil), frame...)
	if len(b) < 58 {
		return b
	}
	next, at, end := b[20], 54, min(len(b), 54+int(b[18])<<8+int(b[19]))
	for (next == 0 || next == 43 || next == 60) && at+2 <= end {
		next, at = b[at], at+8*(int(b[at+1])+1)
	}
	if next != 58 || at+4 > end {
		return b
	}
	b[at+2], b[at+3] = 0, 0
	pseudo := append([]byte(nil), b[22:54]...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(end-at))
	pseudo = append(append(pseudo, 0, 0, 0, 58), b[at:end]...)
	var total uint32
	for i, c := range pseudo {
		if total += uint32(c) << (8 * (1 - i%2)); total > 0xffff {
			total -= 0xffff
		}
	}
	binary.BigEndian.PutUint16(b[at+2:], ^uint16(total))
	return b
}
