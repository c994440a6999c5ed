package message

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each of these takes its bytes for a frame as it is, for a frame with the checksum put right, and, but for
// the first, for a message, so that neither the checksum nor the headers keep the fuzzer out.

// addFrames adds all captured frames, and their messages.
func addFrames(f *testing.F, add func([]byte)) {
	entries, err := os.ReadDir("testdata/frames")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		frame := captured(f, strings.TrimSuffix(e.Name(), ".hex"))
		add(frame)
		add(frame[54:])
	}
	add(extended(f, "00 00 05020000 0100", "3c 00 0104 00000000", "2b 00 00 00 00000000"))
	add(extended(f, "2c 00 0000 00000001"))
	add(everything())
}

// frames returns what b may be taken for.
func frames(t *testing.T, b []byte) []Frame {
	var list []Frame
	for _, candidate := range [][]byte{b, mend(b)} {
		if f, err := ParseFrame(candidate); err == nil {
			checkFrame(t, f)
			list = append(list, f)
		} else if f.ICMP != nil || !errors.Is(err, ErrNotICMP) && !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrFragment) &&
			!errors.Is(err, ErrChecksum) && !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v, %v", f, err)
		}
	}
	return list
}

// messages returns what b may be taken for, also without the headers of a frame.
func messages(t *testing.T, b []byte) []Frame {
	list := frames(t, b)
	for _, from := range []netip.Addr{router, guest, netip.IPv6Unspecified()} {
		for _, to := range []netip.Addr{AllNodes, guest, netip.MustParseAddr("ff02::1:ff00:2")} {
			list = append(list, Frame{Source: guestMAC, Destination: routerMAC, From: from, To: to, HopLimit: 255, ICMP: b})
		}
	}
	return list
}

// checkFrame checks that a frame survives, and what ParseFrame promises.
func checkFrame(t *testing.T, f Frame) {
	t.Helper()
	if !f.From.Is6() || !f.To.Is6() || f.From.IsMulticast() || f.Source.IsMulticast() || len(f.ICMP) < 4 {
		t.Errorf("%+v", f)
	}
	again, err := ParseFrame(f.Marshal())
	if err != nil {
		t.Fatalf("%+v: %v", f, err)
	}
	got, want := slices.Clone(again.ICMP), slices.Clone(f.ICMP)
	if got[2] != want[2] || got[3] != want[3] { // two ways to say 0
		if !bytes.Equal(got[2:4], []byte{0, 0}) || !bytes.Equal(want[2:4], []byte{0xff, 0xff}) {
			t.Errorf("checksum %x, was %x", got[2:4], want[2:4])
		}
		copy(got[2:4], want[2:4])
	}
	again.ICMP, f.ICMP = nil, nil
	if !bytes.Equal(got, want) || again.Source != f.Source || again.Destination != f.Destination || again.From != f.From || again.To != f.To || again.HopLimit != f.HopLimit {
		t.Errorf("%+v %x, was %+v %x", again, got, f, want)
	}
}

// checkErr checks that it is nothing else than what a parser may return.
func checkErr(t *testing.T, f Frame, kind uint8, err error) {
	t.Helper()
	switch {
	case err == nil && (f.HopLimit != 255 || f.Type() != kind || f.ICMP[1] != 0):
		t.Errorf("%+v is valid", f)
	case err != nil && errors.Is(err, ErrType) == (f.Type() == kind) && len(f.ICMP) > 0,
		err != nil && errors.Is(err, ErrType) == errors.Is(err, ErrInvalid):
		t.Errorf("%+v: %v", f, err)
	}
}

func FuzzParseFrame(f *testing.F) {
	addFrames(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		kept := slices.Clone(b)
		frames(t, b)
		if !bytes.Equal(b, kept) {
			t.Error("the frame was written to")
		}
	})
}

func FuzzRouterAdvertisement(f *testing.F) {
	addFrames(f, func(b []byte) { f.Add(b, int64(time.Minute), uint16(100), byte(2), true) })
	forgettable := prefixes("2001:db8:5:1::/64", "fd00:5:1::/64", "2001:db8::/48", "fe80::/64")
	f.Fuzz(func(t *testing.T, b []byte, age int64, retrans uint16, forget byte, withRouter bool) {
		for _, frame := range messages(t, b) {
			ra, err := ParseRouterAdvertisement(frame)
			checkErr(t, frame, TypeRouterAdvertisement, err)
			if err != nil {
				continue
			}
			summary(ra)
			if !linkLocal.Contains(ra.From) || ra.From != frame.From || ra.MAC != frame.Source {
				t.Errorf("from %s %s", ra.From, ra.MAC)
			}
			checkAdvertisement(t, frame.ICMP, time.Duration(age), time.Duration(retrans)*time.Millisecond, forgettable[:int(forget)%(len(forgettable)+1)], withRouter)
		}
	})
}

func FuzzRouterSolicitation(f *testing.F) {
	addFrames(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, frame := range messages(t, b) {
			s, err := ParseRouterSolicitation(frame)
			checkErr(t, frame, TypeRouterSolicitation, err)
			if err == nil && (s.From != frame.From || s.MAC != frame.Source) {
				t.Errorf("%+v", s)
			}
		}
	})
}

func FuzzNeighborSolicitation(f *testing.F) {
	addFrames(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, frame := range messages(t, b) {
			s, err := ParseNeighborSolicitation(frame)
			checkErr(t, frame, TypeNeighborSolicitation, err)
			if err != nil {
				continue
			}
			if s.From != frame.From || s.To != frame.To || s.MAC != frame.Source || !s.Target.Is6() || s.Target.IsMulticast() ||
				s.Duplicate() && (s.LinkLayer != MAC{} || !s.To.IsMulticast()) || s.Nonce != nil && len(s.Nonce)%8 != 6 {
				t.Errorf("%+v", s)
			}
		}
	})
}

func FuzzNeighborAdvertisement(f *testing.F) {
	addFrames(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, frame := range messages(t, b) {
			a, err := ParseNeighborAdvertisement(frame)
			checkErr(t, frame, TypeNeighborAdvertisement, err)
			if err != nil {
				continue
			}
			if a.From != frame.From || a.To != frame.To || a.MAC != frame.Source || !a.Target.Is6() || a.Target.IsMulticast() || a.Solicited && a.To.IsMulticast() {
				t.Errorf("%+v", a)
			}
		}
	})
}

// An option is passed on as one that hosts read, or not at all, whatever it is.
func FuzzProxied(f *testing.F) {
	for _, text := range []string{"190500000000000a20010db8000000000000000000000053fe800000000000000000000000000053",
		"9005000100000258000301610000102001000000000000000000000000000000" + "0004aabbccdd000000"} {
		f.Add(unhex(f, text), int64(10*time.Second))
	}
	f.Add(pio("2001:db8::/64", 0xf0, 3600, 1800), int64(time.Second))
	f.Add(pref64(75, 3), int64(-1))
	f.Fuzz(func(t *testing.T, option []byte, age int64) {
		kept := slices.Clone(option)
		got := Proxied(option, time.Duration(age))
		if got != nil && (len(got) != 8*int(got[1]) || len(got) == 0 || len(got) > len(option) || got[0] != option[0]) {
			t.Errorf("%x of %x", got, option)
		}
		if again := Proxied(got, 0); !bytes.Equal(again, got) {
			t.Errorf("%x, and again %x", got, again)
		}
		before, lasts := Remaining(option)
		if after, still := Remaining(got); got != nil && (still != lasts || after > before) {
			t.Errorf("%x lasts longer than %x", got, option)
		}
		if p, ok := parsePrefix(3, got); got != nil && got[0] == 3 && (!ok || p.OnLink || got[3]&0x30 != 0) {
			t.Errorf("%x of %x", got, option)
		}
		Ended(option)
		if !bytes.Equal(option, kept) {
			t.Error("the option was written to")
		}
	})
}
