package dnsmasq

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/service/vnet"
)

func TestParseLeases(t *testing.T) {
	const file = `1795000000 02:00:00:00:00:01 192.168.231.5 box 01:02:00:00:00:00:01
0 02:00:00:00:00:0A 192.168.231.6 * *
1795000000 06-02:00:00:00:00:01 192.168.231.7 * *
nonsense
1795000000 02:00:00:00:00:01 fe80::1 box *
1795000000 02:00:00:00:00:01 192.168.231.8 box zz
-5 02:00:00:00:00:01 192.168.231.9 box *
duid 00:01:00:01:30:4e
1795000000 1 2001:db8::5 six 00:01
1795000000 02:00:00:00:00:01 192.168.231.10 to`
	var got []vnet.Lease
	for _, l := range parseLeases([]byte(file)) {
		got = append(got, l.Lease)
	}
	want := []vnet.Lease{
		{MAC: "02:00:00:00:00:01", Address: netip.MustParseAddr("192.168.231.5"), Hostname: "box", Expires: time.Unix(1795000000, 0)},
		{MAC: "02:00:00:00:00:0a", Address: netip.MustParseAddr("192.168.231.6")},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseLeases(f *testing.F) {
	f.Add([]byte("1795000000 02:00:00:00:00:01 192.168.231.5 box 01:02\n0 02:00:00:00:00:0a 10.0.0.1 * *\n"))
	f.Add([]byte("duid 00:01\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, l := range parseLeases(content) {
			if !l.Address.Is4() || l.MAC == "" || strings.ContainsAny(l.Hostname, " \n") || l.Hostname == "*" {
				t.Errorf("%+v", l)
			}
		}
	})
}

func TestExpiredLeasesAreLeftOut(t *testing.T) {
	l := newLab(t)
	now := time.Unix(1795000000, 0)
	l.options.Clock = func() time.Time { return now }
	l.room = l.newRoom()
	sh(t, `mkdir -p %[1]s; cat >%[1]s/default.leases <<END
1795000001 02:00:00:00:00:02 192.168.231.6 * *
1795000000 02:00:00:00:00:01 192.168.231.5 * *
0 02:00:00:00:00:03 192.168.231.4 * *
END
touch %[1]s/Not-A-Network.leases %[1]s/default.leases.new`, l.options.StateDir+"/leases")
	_, leases := l.observe()
	var got []string
	for _, lease := range leases["default"] {
		got = append(got, lease.Address.String())
	}
	if diff := cmp.Diff([]string{"192.168.231.4", "192.168.231.6"}, got); diff != "" || len(leases) != 1 {
		t.Errorf("%v %s", leases, diff)
	}
}

// dnsmasq empties the file before it writes it again: who reads in between must not
// believe that all leases are gone.
func TestLeaseFileIsRewrittenWhileRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.leases")
	line := "0 02:00:00:00:00:01 192.168.231.5 box *\n"
	whole := []byte(strings.Repeat(line, 200))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(whole); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	var longest atomic.Int64 // rewrite
	go func() {
		defer close(stopped)
		for {
			began := time.Now()
			f.Truncate(0)
			for at := 0; at < len(whole); at += 4096 { // stdio's buffer
				f.WriteAt(whole[at:min(at+4096, len(whole))], int64(at))
			}
			longest.Store(max(longest.Load(), int64(time.Since(began))))
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	for range 200 {
		leases, err := readLeases(context.Background(), path)
		if err != nil || len(leases) != 200 {
			close(stop)
			<-stopped
			// On a machine that takes so long for a rewrite nothing is promised.
			if worst := time.Duration(longest.Load()); err != nil || worst < 20*time.Millisecond {
				t.Errorf("%d leases, %v; longest rewrite %s", len(leases), err, worst)
			}
			return
		}
	}
	close(stop)
	<-stopped
}

func TestPruneLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.leases")
	if err := pruneLeases(path, netip.MustParsePrefix("10.0.0.0/24"), time.Now()); err != nil {
		t.Errorf("no file: %v", err)
	}
	inside := "0 02:00:00:00:00:01 10.0.0.5 box *\n"
	if err := os.WriteFile(path, []byte("0 02:00:00:00:00:02 10.0.1.5 old *\n"+inside+"duid 00:01\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := pruneLeases(path, netip.MustParsePrefix("10.0.0.0/24"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != inside {
		t.Errorf("left: %q", b)
	}
	// Who was in another subnet is remembered until he has an address of this one.
	if former, err := formerLeases(path, parseLeases([]byte(inside))); err != nil || len(former) != 1 || former[0].MAC != "02:00:00:00:00:02" {
		t.Errorf("former: %v, %v", former, err)
	}
	if former, err := formerLeases(path, former("02:00:00:00:00:02")); err != nil || len(former) != 0 {
		t.Errorf("former who are back: %v, %v", former, err)
	}
	// Back in the old subnet, nobody there is of a former one.
	if err := pruneLeases(path, netip.MustParsePrefix("10.0.1.0/24"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if former, err := formerLeases(path, nil); err != nil || len(former) != 1 || former[0].MAC != "02:00:00:00:00:01" {
		t.Errorf("former after the way back: %v, %v", former, err)
	}
}

func former(mac string) []lease { return []lease{{Lease: vnet.Lease{MAC: mac}}} }

// A lease that is missing from a file which was changed just now is not gone: dnsmasq truncates the
// file before it writes it again, and may be kept from that for long.
func TestTruncatedLeaseFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "default.leases")
	pokes := make(chan string, 8)
	r := &Room{seen: map[string][]lease{}, watchers: map[int]func(string){0: func(reason string) { pokes <- reason }}}
	write := func(content string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	addresses := func() string {
		t.Helper()
		leases, err := r.look("default", path)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, l := range leases {
			list = append(list, l.Address.String())
		}
		return strings.Join(list, " ")
	}
	const one, two, moved = "0 02:00:00:00:00:01 10.0.0.1 * *\n", "0 02:00:00:00:00:02 10.0.0.2 * *\n", "0 02:00:00:00:00:01 10.0.0.9 * *\n"
	for _, step := range []struct {
		content string
		age     time.Duration
		want    string
	}{
		{one, 0, "10.0.0.1"}, // new: at once
		{"", 0, "10.0.0.1"},  // truncated just now
		{one + two, 0, "10.0.0.1 10.0.0.2"},
		{one, 0, "10.0.0.1 10.0.0.2"},  // half written, or gone
		{one, time.Minute, "10.0.0.1"}, // gone
		{moved, 0, "10.0.0.9"},         // no two addresses for a guest
		{"", time.Minute, ""},
	} {
		write(step.content, step.age)
		if got := addresses(); got != step.want {
			t.Errorf("%q, %s old: %q, want %q", step.content, step.age, got, step.want)
		}
	}
	select { // whoever was told of a held lease is told to look again
	case <-pokes:
	case <-time.After(30 * time.Second):
		t.Error("nobody was poked when the file had settled")
	}
}
