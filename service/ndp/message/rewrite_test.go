package message

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// said is an advertisement's lifetimes as text, one option a word: what the tests read.
func said(b []byte) string {
	words := []string{fmt.Sprintf("%d/%02x/%d", binary.BigEndian.Uint16(b[6:]), b[5], binary.BigEndian.Uint32(b[12:]))}
	seconds := func(b []byte) string {
		if n := binary.BigEndian.Uint32(b); n != 0xffffffff {
			return fmt.Sprint(n)
		}
		return "∞"
	}
	for at := 16; at < len(b); at += 8 * int(b[at+1]) {
		o := b[at:]
		switch o[0] {
		case 3:
			words = append(words, fmt.Sprintf("%s/%d:%s/%s", netip.AddrFrom16([16]byte(o[16:])), o[2], seconds(o[4:]), seconds(o[8:])))
		case 24, 25, 31, 144:
			words = append(words, fmt.Sprintf("%d:%s", o[0], seconds(o[4:])))
		case 38:
			words = append(words, fmt.Sprintf("38:%d*8+%d", binary.BigEndian.Uint16(o[2:])>>3, o[3]&7))
		default:
			words = append(words, fmt.Sprint(o[0]))
		}
	}
	return strings.Join(words, " ")
}

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// everything is an advertisement with each option that has a lifetime.
func everything() []byte {
	b := advertise(pio("2001:db8::/64", 0xc0, 3600, 1800), lasting(24, 600, "routes.."), lasting(25, 600, strings.Repeat("n", 16)),
		lasting(31, 600, "names..."), lasting(144, 600, "adn....."), pref64(75, 3), lasting(200, 600, "unknown."))
	b[2], b[3], b[5] = 0xbe, 0xef, 0x48
	return b
}

func TestAnnouncement(t *testing.T) {
	const inf = math.MaxUint32
	tests := []struct {
		name    string
		body    []byte
		age     time.Duration
		retrans time.Duration
		want    string
	}{
		{"at once", everything(), 0, 0, "1800/48/0 2001:db8::/64:3600/1800 24:600 25:600 31:600 144:600 38:75*8+3 200"},
		{"before it was heard", everything(), -time.Hour, 0, "1800/48/0 2001:db8::/64:3600/1800 24:600 25:600 31:600 144:600 38:75*8+3 200"},
		{"a nanosecond later", everything(), 1, 0, "1799/48/0 2001:db8::/64:3599/1799 24:599 25:599 31:599 144:599 38:74*8+3 200"},
		{"a second later", everything(), time.Second, 0, "1799/48/0 2001:db8::/64:3599/1799 24:599 25:599 31:599 144:599 38:74*8+3 200"},
		{"eight seconds later", everything(), 8 * time.Second, 0, "1792/48/0 2001:db8::/64:3592/1792 24:592 25:592 31:592 144:592 38:74*8+3 200"},
		{"nine seconds later", everything(), 9 * time.Second, 0, "1791/48/0 2001:db8::/64:3591/1791 24:591 25:591 31:591 144:591 38:73*8+3 200"},
		{"when some have ended", everything(), 601 * time.Second, 0, "1199/48/0 2001:db8::/64:2999/1199 24:0 25:0 31:0 144:0 38:0*8+3 200"},
		{"when the router has ended", everything(), 1800 * time.Second, 0, "0/40/0 2001:db8::/64:1800/0 24:0 25:0 31:0 144:0 38:0*8+3 200"},
		{"when all has ended", everything(), math.MaxInt64, 0, "0/40/0 2001:db8::/64:0/0 24:0 25:0 31:0 144:0 38:0*8+3 200"},
		{"after more than any lifetime", everything(), 1 << 32 * time.Second, 0, "0/40/0 2001:db8::/64:0/0 24:0 25:0 31:0 144:0 38:0*8+3 200"},
		{"100 ms", everything(), 0, 100 * time.Millisecond, "1800/48/100 2001:db8::/64:3600/1800 24:600 25:600 31:600 144:600 38:75*8+3 200"},
		{"less than a millisecond", everything(), 0, 1, "1800/48/1 2001:db8::/64:3600/1800 24:600 25:600 31:600 144:600 38:75*8+3 200"},
		{"more than fits", everything(), 0, math.MaxInt64, "1800/48/4294967295 2001:db8::/64:3600/1800 24:600 25:600 31:600 144:600 38:75*8+3 200"},
		{"no replacement", everything(), 0, -1, "1800/48/0 2001:db8::/64:3600/1800 24:600 25:600 31:600 144:600 38:75*8+3 200"},
		{"infinite", advertise(pio("fd00::/64", 0, inf, inf), lasting(24, inf, ""), lasting(25, inf, ""), lasting(31, inf, ""), lasting(144, inf, "")), math.MaxInt64, 0,
			"0/00/0 fd00::/64:∞/∞ 24:∞ 25:∞ 31:∞ 144:∞"},
		{"valid infinite", advertise(pio("fd00::/64", 0, inf, 60)), 20 * time.Second, 0, "1780/00/0 fd00::/64:∞/40"},
		{"nearly infinite", advertise(pio("fd00::/64", 0, inf-1, inf-1)), 5 * time.Second, 0, "1795/00/0 fd00::/64:4294967289/4294967289"},
		{"preferred longer than valid", advertise(pio("fd00::/64", 0, 60, 61), pio("fd01::/64", 0, 60, inf)), time.Hour, 0, "0/00/0 fd00::/64:60/61 fd01::/64:60/∞"},
		{"longest PREF64", advertise(pref64(8191, 7)), 8 * time.Second, 0, "1792/00/0 38:8190*8+7"},
		{"PREF64 ended", advertise(pref64(0, 7)), 8 * time.Second, 0, "1792/00/0 38:0*8+7"},
		{"two of a prefix", advertise(pio("fd00::/64", 0, 60, 30), pio("fd00::/64", 0, 600, 300)), 40 * time.Second, 0, "1760/00/0 fd00::/64:20/0 fd00::/64:560/260"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := body(t, test.body).Announcement(test.age, test.retrans)
			if diff := cmp.Diff(test.want, said(got)); diff != "" {
				t.Error(diff)
			}
			if got[2] != 0 || got[3] != 0 {
				t.Error("a checksum is there")
			}
			elsewhere(t, test.body, got)
		})
	}
}

// elsewhere checks that nothing was changed but lifetimes, checksum, preference and Retrans Timer.
func elsewhere(t testing.TB, before, after []byte) {
	t.Helper()
	if len(after) < len(before) {
		t.Fatalf("%d bytes became %d", len(before), len(after))
	}
	at, length := 16, 0
	for i, b := range before {
		if i == at+length && i >= 16 {
			at, length = i, 8*int(before[i+1])
		}
		var may byte
		switch o := i - at; {
		case i < 16:
			may = []byte{2: 0xff, 3: 0xff, 5: 0x18, 6: 0xff, 7: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff}[i]
		case before[at] == 3 && length >= 32 && o >= 4 && o < 12,
			slices.Contains([]byte{24, 25, 31, 144}, before[at]) && o >= 4 && o < 8,
			before[at] == 38 && o == 2:
			may = 0xff
		case before[at] == 38 && o == 3:
			may = 0xf8
		}
		if (b^after[i])&^may != 0 {
			t.Errorf("byte %d (of option %d at %d) was %02x, is %02x", i, before[at], at, b, after[i])
		}
	}
}

func TestFinal(t *testing.T) {
	b := advertise(pio("2001:db8::1/64", 0xc0, 3600, 1800), pio("fd00::/64", 0x80, 600, 600), pio("fe80::/64", 0x80, 600, 600), pio("fd01::/64", 0xc0, 60, 600),
		lasting(24, 600, ""), lasting(25, 600, ""), pio("fd00::/64", 0x40, 60, 60), lasting(31, 600, ""), lasting(144, 600, ""), pref64(75, 3), lasting(200, 600, ""))
	b[5] = 0xd8
	tests := []struct {
		name   string
		forget []netip.Prefix
		router bool
		want   string
	}{
		{"nothing", nil, false, "1700/d8/0 2001:db8::1/64:3500/1700 fd00::/64:500/500 fe80::/64:500/500 fd01::/64:60/600 24:500 25:500 fd00::/64:0/0 31:500 144:500 38:62*8+3 200"},
		{"a prefix", prefixes("2001:db8::/64"), false, "1700/d8/0 2001:db8::1/64:0/0 fd00::/64:500/500 fe80::/64:500/500 fd01::/64:60/600 24:500 25:500 fd00::/64:0/0 31:500 144:500 38:62*8+3 200"},
		{"one that is there twice", prefixes("fd00::5/64"), false, "1700/d8/0 2001:db8::1/64:3500/1700 fd00::/64:0/0 fe80::/64:500/500 fd01::/64:60/600 24:500 25:500 fd00::/64:0/0 31:500 144:500 38:62*8+3 200"},
		{"one that hosts ignored", prefixes("fd01::/64"), false, "1700/d8/0 2001:db8::1/64:3500/1700 fd00::/64:500/500 fe80::/64:500/500 fd01::/64:0/0 24:500 25:500 fd00::/64:0/0 31:500 144:500 38:62*8+3 200"},
		{"others", prefixes("2001:db8::/56", "fd02::/64", "fd02::1/64", "10.0.0.0/8"), false, "1700/d8/0 2001:db8::1/64:3500/1700 fd00::/64:500/500 fe80::/64:500/500 fd01::/64:60/600 24:500 25:500 fd00::/64:0/0 31:500 144:500 38:62*8+3 200 2001:db8::/56:0/0 fd02::/64:0/0"},
		{"the router", nil, true, "0/c0/0 2001:db8::1/64:0/0 fd00::/64:0/0 fe80::/64:0/0 fd01::/64:0/0 24:0 25:0 fd00::/64:0/0 31:0 144:0 38:0*8+3 200"},
		{"both", append(prefixes("fd00::/64", "fd02::/64"), netip.Prefix{}), true, "0/c0/0 2001:db8::1/64:0/0 fd00::/64:0/0 fe80::/64:0/0 fd01::/64:0/0 24:0 25:0 fd00::/64:0/0 31:0 144:0 38:0*8+3 200 fd02::/64:0/0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			forget := slices.Clone(test.forget)
			got := body(t, b).Final(test.forget, test.router, 100*time.Second)
			if diff := cmp.Diff(test.want, said(got)); diff != "" {
				t.Error(diff)
			}
			if !slices.Equal(forget, test.forget) {
				t.Errorf("the argument was changed to %v", test.forget)
			}
			elsewhere(t, b, got)
			for appended := got[len(b):]; len(appended) > 0; appended = appended[32:] {
				if !bytes.Equal(appended[:2], []byte{3, 4}) || appended[3] != 0xc0 || [4]byte(appended[12:]) != [4]byte{} {
					t.Errorf("appended %x", appended[:32])
				}
			}
		})
	}
}

// A router that isn't a default one has no preference to lose, but may have been wrong about it.
func TestFinalOfRadvdsFinal(t *testing.T) {
	got := said(heard(t, "radvd-final").Final(nil, true, 0))
	if want := "0/40/1000 2001:db8:5:1::/64:0/0 fd00:5:1::/64:0/0 24:0 24:0 25:0 31:0 5 1 7"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := heard(t, "radvd-final").Announcement(0, 0), heard(t, "radvd-final").Body(); !bytes.Equal(got[4:], want[4:]) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

// There is an end to what fits a packet.
func TestFinalFitsAPacket(t *testing.T) {
	b := advertise()
	for len(b)+64 <= 65535 {
		b = append(b, 200, 1, 0, 0, 0, 0, 0, 0)
	}
	got := body(t, b).Final(prefixes("fd00::/64", "fd01::/64", "fd02::/64"), true, 0)
	if len(got) > 65535 || len(got) != len(b)+32 {
		t.Errorf("%d bytes of %d", len(got), len(b))
	}
	parsed(t, AdvertisementFrame(router, routerMAC, AllNodes, Multicast(AllNodes), got).Marshal())
}

func TestWithdrawal(t *testing.T) {
	got := Withdrawal(prefixes("2001:db8::1/64", "fd00::/64", "fd00::/64", "10.0.0.0/8"))
	want := []byte{134, 15: 0}
	want = append(append(want, pio("2001:db8::/64", 0xc0, 0, 0)...), pio("fd00::/64", 0xc0, 0, 0)...)
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if got := said(Withdrawal(nil)); got != "0/00/0" {
		t.Error(got)
	}
	body(t, got)
}
