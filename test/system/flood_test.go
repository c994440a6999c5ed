package system_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// flows are packets without pause from a guest to the internet: of one old connection and many new ones, of both families.
type flows []*lab.Probe

// flood has the guest send a packet of each kind every so often.
func (w *world) flood(g *lab.Guest, every time.Duration) (list flows) {
	w.t.Helper()
	o := lab.ProbeOptions{Interval: every, Timeout: 2 * time.Second}
	for _, echo := range []netip.AddrPort{lab.EchoIPv4, lab.EchoIPv6} {
		for _, probe := range []func(context.Context, netip.AddrPort, lab.ProbeOptions) (*lab.Probe, error){g.ProbeFlow, g.ProbeSockets} {
			p, err := probe(w.ctx, echo, o)
			w.must(err)
			list = append(list, p)
		}
	}
	return list
}

// allAnswered waits until each is answered anew.
func (w *world) allAnswered(list flows) {
	w.t.Helper()
	for _, p := range list {
		_, err := p.WaitSuccess(w.soon(), time.Now())
		w.must(err)
	}
}

// flooding holds for what flood sends. farTTL tells one guest's IPv4 from the others' on the other side of a NAT, which
// may change ports.
func flooding(f lab.Frame) bool {
	_, dst := f.UDPPorts()
	return dst == lab.EchoPort
}

const farTTL = 128

// passing holds for packets of the guest that has farTTL and the IPv6 address.
func passing(v6 netip.Addr) func(lab.Frame) bool {
	return func(f lab.Frame) bool {
		if f.EtherType() == lab.EtherIPv4 {
			return f.Data[14+8] > 64 // RFC 791 3.1: time to live
		}
		return f.SrcIP() == v6
	}
}

// dialling holds for what a guest sends that tries to connect by TCP.
func dialling(f lab.Frame) bool {
	return f.Protocol() == unix.IPPROTO_TCP && (f.DstIP() == lab.InternetIPv4 || f.DstIP() == lab.InternetIPv6)
}

func before(t time.Time) func(lab.Frame) bool {
	return func(f lab.Frame) bool { return f.Time.Before(t) }
}

func inFamily(v6 bool) func(lab.Frame) bool {
	return func(f lab.Frame) bool { return f.DstIP().Is6() == v6 }
}

// dial has the guest try to connect to the internet, both ways, until the test ends.
func (w *world) dial(g *lab.Guest) {
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(w.ctx)
	w.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, echo := range []netip.AddrPort{lab.EchoIPv4, lab.EchoIPv6} {
				try, stop := context.WithTimeout(ctx, 30*time.Millisecond)
				if conn, err := g.DialTCP(try, echo); err == nil {
					conn.Close()
				}
				stop()
			}
			select {
			case <-time.After(20 * time.Millisecond): // the next attempt of an impatient program
			case <-ctx.Done():
			}
		}
	}()
}

// seenAs waits until the internet sees the guest with the address.
func (w *world) seenAs(g *lab.Guest, echo netip.AddrPort, want netip.Addr) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s is seen as %s", g.Name, want), func() error {
		ctx, cancel := w.short()
		defer cancel()
		seen, err := g.Reach(ctx, echo)
		if err == nil && seen.Addr() != want {
			err = fmt.Errorf("it is seen as %s", seen)
		}
		return err
	})
}

// pictureAtRest is the picture of the kernel when it is the same twice running, without what is refused for two hours,
// since guests may go on with it, and rules in the order of their priorities alone.
func (w *world) pictureAtRest() picture {
	w.t.Helper()
	var p picture
	w.eventually("the picture is at rest", func() error {
		last := p
		p = w.look()
		p["nft -s list ruleset"], _, _ = strings.Cut(p["nft -s list ruleset"], "\ntable netdev gangway")
		for _, rules := range []string{"ip -4 rule show", "ip -6 rule show"} {
			p[rules] = sortLines(p[rules])
		}
		if d := last.diff(p); last == nil || d != "" || strings.Contains(p["ip -6 addr show"], "tentative") {
			return fmt.Errorf("it changes, or an address is being checked: %s", d)
		}
		return nil
	})
	return p
}

// linger lets guests send for a while.
func (w *world) linger(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.ctx.Done():
	}
}
