package message

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	drawnLifetimes = rapid.OneOf(rapid.Uint32(), rapid.Uint32Range(0, 4000), rapid.SampledFrom([]uint32{0, 1, 0xfffffffe, 0xffffffff}))
	drawnPrefixes  = rapid.SampledFrom([]string{"2001:db8::/64", "2001:db8::1/64", "2001:db8::/48", "fd00::/64", "fe80::/64", "ff00::/8", "::/0", "2001:db8::7/128"})
	drawnKinds     = rapid.OneOf(rapid.Byte(), rapid.SampledFrom([]byte{1, 3, 5, 24, 25, 31, 38, 144}))
)

// drawnOption is an option as it should be, or any bytes with a type and a length.
var drawnOption = rapid.Custom(func(t *rapid.T) []byte {
	if rapid.Bool().Draw(t, "prefix") {
		return pio(drawnPrefixes.Draw(t, "prefix"), rapid.Byte().Draw(t, "flags"), drawnLifetimes.Draw(t, "valid"), drawnLifetimes.Draw(t, "preferred"))
	}
	units := rapid.IntRange(1, 6).Draw(t, "units")
	b := rapid.SliceOfN(rapid.Byte(), 8*units, 8*units).Draw(t, "option")
	b[0], b[1] = drawnKinds.Draw(t, "kind"), byte(units)
	if rapid.Bool().Draw(t, "lasting") {
		binary.BigEndian.PutUint32(b[4:], drawnLifetimes.Draw(t, "lifetime"))
	}
	return b
})

var drawnBody = rapid.Custom(func(t *rapid.T) []byte {
	b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "header")
	b[0], b[1] = 134, 0
	return append(b, slices.Concat(rapid.SliceOfN(drawnOption, 0, 8).Draw(t, "options")...)...)
})

func drawForget(t *rapid.T) []netip.Prefix {
	return prefixes(rapid.SliceOfN(drawnPrefixes, 0, 3).Draw(t, "forget")...)
}

// Whatever a router said is kept byte for byte, and only what is named changes.
func TestEverythingElseIsKept(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := drawnBody.Draw(r, "body")
		age := time.Duration(rapid.Int64Range(-1e9, 6000e9).Draw(r, "age"))
		checkAdvertisement(t, b, age, 0, drawForget(r), rapid.Bool().Draw(r, "router"))
		if t.Failed() {
			r.FailNow()
		}
	})
}

// What is announced later, of what was announced, is what would have been announced; in PREF64, but for
// what was rounded.
func TestAnnouncementsAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ra, err := ParseBody(drawnBody.Draw(t, "body"), router, routerMAC)
		if err != nil {
			t.Fatal(err)
		}
		a := time.Duration(rapid.IntRange(0, 5000).Draw(t, "a")) * 8 * time.Second
		b := time.Duration(rapid.IntRange(0, 5000).Draw(t, "b")) * time.Second
		once := ra.Announcement(a+b, 0)
		ra, err = ParseBody(ra.Announcement(a, 0), router, routerMAC)
		if err != nil {
			t.Fatal(err)
		}
		if twice := ra.Announcement(b, 0); !bytes.Equal(once, twice) {
			t.Fatalf("after %s  %s\nand %s %s", a+b, said(once), b, said(twice))
		}
	})
}

// checkAdvertisement checks what is true for any body that a router may have sent.
func checkAdvertisement(t testing.TB, b []byte, age, retrans time.Duration, forget []netip.Prefix, withRouter bool) {
	t.Helper()
	ra := body(t, b)
	kept := slices.Clone(b)
	if !bytes.Equal(ra.Body(), b) {
		t.Errorf("body %x, was %x", ra.Body(), b)
	}
	var options []byte
	for kind, option := range ra.Options() {
		if kind != option[0] || len(option) != 8*int(option[1]) {
			t.Errorf("option %d of %x", kind, option)
		}
		options = append(options, option...)
	}
	if !bytes.Equal(options, b[16:]) {
		t.Errorf("options %x of %x", options, b)
	}

	announced := ra.Announcement(age, retrans)
	elsewhere(t, b, announced)
	later := body(t, announced)
	if again := later.Announcement(0, retrans); !bytes.Equal(again, announced) {
		t.Errorf("announced again: %s, was %s", said(again), said(announced))
	}
	checkLifetimes(t, ra, later, age)

	final := ra.Final(forget, withRouter, age)
	elsewhere(t, b, final)
	last := body(t, final)
	if again := last.Final(forget, withRouter, 0); !bytes.Equal(again, final) {
		t.Errorf("final again: %s, was %s", said(again), said(final))
	}
	checkForgotten(t, last, forget, withRouter)
	if !withRouter && len(forget) == 0 && !bytes.Equal(final, ra.Announcement(age, 0)) {
		t.Errorf("final of nothing: %s", said(final))
	}
	if !bytes.Equal(ra.Body(), kept) || !bytes.Equal(b, kept) {
		t.Error("the body was written to")
	}
	if got := parsed(t, AdvertisementFrame(router, routerMAC, AllNodes, Multicast(AllNodes), final).Marshal()); !bytes.Equal(got.ICMP[4:], final[4:]) {
		t.Errorf("marshalled: %x, was %x", got.ICMP, final)
	}
}

// checkLifetimes compares what is left with what was: no more than there should be, and less
// by no more than a rounded second.
func checkLifetimes(t testing.TB, was, is *RouterAdvertisement, age time.Duration) {
	t.Helper()
	right := func(what string, was, is time.Duration) {
		t.Helper()
		left := max(0, was-max(0, age))
		if is > left || is <= left-time.Second {
			t.Errorf("%s was %s, is %s after %s", what, was, is, age)
		}
	}
	right("router", was.RouterLifetime(), is.RouterLifetime())
	before, after := was.Prefixes(), is.Prefixes()
	if len(before) != len(after) {
		t.Fatalf("%d prefixes, were %d", len(after), len(before))
	}
	for i, p := range after {
		if q := before[i]; p.Prefix != q.Prefix || p.OnLink != q.OnLink || p.Autonomous != q.Autonomous || p.Preferred > p.Valid {
			t.Errorf("%v was %v", p, q)
		}
		for what, pair := range map[string][2]time.Duration{"valid": {before[i].Valid, p.Valid}, "preferred": {before[i].Preferred, p.Preferred}} {
			if pair[0] != Infinity {
				right(what, pair[0], pair[1])
			} else if pair[1] != Infinity {
				t.Errorf("%s was infinite, is %s", what, pair[1])
			}
		}
	}
}

// checkForgotten checks that hosts forget what they should.
func checkForgotten(t testing.TB, ra *RouterAdvertisement, forget []netip.Prefix, withRouter bool) {
	t.Helper()
	ended := map[netip.Prefix]bool{}
	for kind, option := range ra.Options() {
		if p, ok := parsePrefix(kind, option); ok {
			over := p.Valid == 0 && p.Preferred == 0
			if !over && (withRouter || slices.Contains(masked(forget), p.Prefix)) {
				t.Errorf("%+v isn't forgotten", p)
			}
			ended[p.Prefix] = over
		}
		if !withRouter {
			continue
		}
		switch kind {
		case 24, 25, 31, 144:
			if binary.BigEndian.Uint32(option[4:]) != 0 {
				t.Errorf("%x isn't forgotten", option)
			}
		case 38:
			if option[2] != 0 || option[3]&0xf8 != 0 {
				t.Errorf("%x isn't forgotten", option)
			}
		}
	}
	for _, p := range masked(forget) {
		if !ended[p] {
			t.Errorf("%s isn't forgotten", p)
		}
	}
	if withRouter && (ra.RouterLifetime() != 0 || ra.body[5]&0x18 != 0) {
		t.Errorf("the router isn't forgotten: %x", ra.body[:16])
	}
}
