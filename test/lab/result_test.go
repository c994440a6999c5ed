package lab

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at makes a measurement with a packet every 10 ms: '.' answered after 1 ms, 'x' lost.
func at(start time.Time, pattern string) Result {
	var r Result
	for i, c := range pattern {
		s := Sample{Seq: i, Sent: start.Add(time.Duration(i) * 10 * time.Millisecond), RTT: time.Millisecond}
		if c == 'x' {
			s.RTT = -1
		}
		r.Samples = append(r.Samples, s)
	}
	return r
}

func TestResult(t *testing.T) {
	start := time.Unix(1000, 0)
	const ms = time.Millisecond
	for _, c := range []struct {
		name, pattern     string
		from              time.Duration
		lost              int
		blackout, settled time.Duration
		open              bool
		gap               time.Duration
	}{
		{"nothing lost", "....", 0, 0, 0, 0, false, 10 * ms},
		{"one run", "..xxx..", 0, 3, 30 * ms, 50 * ms, false, 40 * ms},
		{"only what comes after counts", "xxxx.x.", 40 * ms, 1, 10 * ms, 20 * ms, false, 20 * ms},
		{"the longest of two", ".x.xx.", 0, 2 + 1, 20 * ms, 50 * ms, false, 30 * ms},
		{"never back", "..xxx", 0, 3, 20 * ms, 40 * ms, true, 10 * ms},
		{"no packet at all", "", 0, 0, 0, 0, false, 0},
	} {
		r := at(start, c.pattern)
		from := start.Add(c.from)
		if got := r.LostAfter(from); got != c.lost {
			t.Errorf("%s: lost %d, want %d", c.name, got, c.lost)
		}
		if got := r.Blackout(from); got != c.blackout {
			t.Errorf("%s: blackout %v, want %v", c.name, got, c.blackout)
		}
		if got, ok := r.Settled(from); got != c.settled || ok == c.open {
			t.Errorf("%s: settled %v, %t, want %v, %t", c.name, got, ok, c.settled, !c.open)
		}
		if got := r.LongestGap(); got != c.gap {
			t.Errorf("%s: gap %v, want %v", c.name, got, c.gap)
		}
	}
	r := at(start, ".xx.x")
	want := []Outage{{From: r.Samples[1].Sent, To: r.Samples[3].Sent, Lost: 2}, {From: r.Samples[4].Sent, To: r.Samples[4].Sent, Lost: 1, Open: true}}
	if diff := cmp.Diff(want, r.Outages()); diff != "" {
		t.Error(diff)
	}
	if s, ok := r.FirstSuccess(r.Samples[1].Sent); !ok || s.Seq != 3 {
		t.Errorf("first success is %v, %t, want packet 3", s, ok)
	}
	if s, ok := r.FirstSuccess(r.Samples[4].Sent); ok {
		t.Errorf("first success is %v, want none", s)
	}
}

func TestEchoMessage(t *testing.T) {
	from := netip.MustParseAddrPort("192.0.2.7:4711")
	seq, seen, err := decodeEcho(appendPeer(encodeEcho(42), from))
	if seq != 42 || seen != from || err != nil {
		t.Error(seq, seen, err)
	}
	if _, _, err := decodeEcho(encodeEcho(42)); !errors.Is(err, errNotEcho) {
		t.Error(err)
	}
}

func TestDecodeAnswer(t *testing.T) {
	question := encodeQuery(7, "site.example", TypeTXT)
	reply := append([]byte(nil), question...)
	reply[2], reply[7] = 0x81, 1
	reply = append(reply, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, 2, 1, 'a')
	a, err := decodeAnswer(7, reply)
	if diff := cmp.Diff(Answer{Texts: []string{"a"}}, a); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for name, b := range map[string][]byte{"a question": question, "cut short": reply[:len(reply)-1], "nothing": nil} {
		if a, err := decodeAnswer(7, b); err == nil {
			t.Errorf("%s was read as %v", name, a)
		}
	}
	if a, err := decodeAnswer(8, reply); err == nil {
		t.Errorf("the answer to another question was read as %v", a)
	}
}

func FuzzDecodeAnswer(f *testing.F) {
	reply := encodeQuery(0, "site.example", TypeA)
	reply[2], reply[7] = 0x81, 1
	f.Add(append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAnswer(0, b)
		for _, addr := range a.Addrs {
			if err == nil && !addr.IsValid() {
				t.Errorf("invalid address in %v", a)
			}
		}
	})
}

func TestOptions(t *testing.T) {
	for name, change := range map[string]func(*SiteOptions){
		"long name":            func(s *SiteOptions) { s.Name = "toolong" },
		"duplicate name":       func(s *SiteOptions) { s.Name = "a" },
		"duplicate uplink":     func(s *SiteOptions) { s.Uplink = "wlan0" },
		"long uplink":          func(s *SiteOptions) { s.Uplink = "0123456789abcdef" },
		"LAN too small":        func(s *SiteOptions) { s.IPv4 = netip.MustParsePrefix("10.0.0.0/30") },
		"IPv6 not a /64":       func(s *SiteOptions) { s.IPv6 = netip.MustParsePrefix("2001:db8::/56") },
		"router outside":       func(s *SiteOptions) { s.RouterIPv4 = netip.MustParseAddr("10.21.0.1") },
		"further uplink twice": func(s *SiteOptions) { s.More = []UplinkOptions{{Name: "wlan0"}} },
		"nameless uplink":      func(s *SiteOptions) { s.More = []UplinkOptions{{}} },
		"bridge is an uplink":  func(s *SiteOptions) { s.Bridge = "wlan0" },
		"RA without IPv6":      func(s *SiteOptions) { s.IPv6, s.RA = netip.Prefix{}, new(RA) },
		"families mixed up":    func(s *SiteOptions) { s.IPv4 = s.IPv6 },
		"families mixed up 6":  func(s *SiteOptions) { s.IPv6 = s.IPv4 },
	} {
		o := Options{Sites: DefaultSites()}
		change(&o.Sites[1])
		if err := o.complete(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	o := Options{}
	if err := o.complete(); err != nil || o.Sites[1].RouterIPv4 != netip.MustParseAddr("10.20.0.1") {
		t.Errorf("defaults: %+v, %v", o, err)
	}
}

func TestPool(t *testing.T) {
	for _, c := range []struct{ lan, router, first, last string }{
		{"10.20.0.0/24", "10.20.0.1", "10.20.0.128", "10.20.0.254"},
		{"10.20.0.0/24", "10.20.0.254", "10.20.0.128", "10.20.0.253"},
		{"10.20.0.0/24", "10.20.0.128", "10.20.0.129", "10.20.0.254"},
		{"10.0.0.0/29", "10.0.0.1", "10.0.0.4", "10.0.0.6"},
		{"10.1.0.0/16", "10.1.0.1", "10.1.128.0", "10.1.255.254"},
	} {
		s := &Site{Options: SiteOptions{IPv4: netip.MustParsePrefix(c.lan)}, RouterIPv4: netip.MustParseAddr(c.router)}
		first, last := s.pool()
		if first.String() != c.first || last.String() != c.last {
			t.Errorf("pool of %s with router %s: %v to %v, want %s to %s", c.lan, c.router, first, last, c.first, c.last)
		}
	}
}
