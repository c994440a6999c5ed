package system_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

var uniqueLocal = netip.MustParsePrefix("fc00::/7")

// singleAddresses are an access point and an Ethernet, which is preferred, where DHCPv6 gives each host one address and
// nobody can make any.
func singleAddresses() []lab.SiteOptions {
	sites := wifiAndDesk()
	for i := range sites {
		ra := lab.ManagedRA(sites[i].IPv6)
		sites[i].RA, sites[i].DHCPv6 = &ra, true
	}
	return sites
}

// own64 waits until guests have a /64 of the network's own, by the method, and returns it.
func (w *world) own64(network godbus.ObjectPath, method string) netip.Prefix {
	w.t.Helper()
	w.waitProperty(network, "IPv6State", method)
	list := w.get(network, "IPv6Prefixes").([]string)
	if len(list) != 1 {
		w.t.Fatalf("IPv6Prefixes of %s is %v, want one", network, list)
	}
	p, err := netip.ParsePrefix(list[0])
	w.must(err)
	if p.Bits() != 64 || p != p.Masked() {
		w.t.Errorf("guests have %s, want a /64", p)
	}
	return p
}

// hostHas waits for the laptop's address by an uplink.
func (w *world) hostHas(ifname string, within netip.Prefix) netip.Addr {
	w.t.Helper()
	addr, err := w.Laptop.WaitAddress(w.soon(), ifname, within)
	w.must(err)
	return addr
}

// Where hosts get a single address each, guests' are translated, if the network's settings allow that; and elsewhere if
// they ask for it.
func TestNAT66(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: singleAddresses()[1:]})
	host := w.hostHas("eth0", prefixB)
	wire := w.cable("eth0")
	w.waitReason("no router on eth0 advertises a prefix that guests could make addresses of; nat66-fallback would translate guests' addresses")
	w.waitProperty(w.network, "IPv6State", "link-local")
	g := w.attached("vm1", w.network)
	w.call(w.network, "Network.Update", dict("nat66-fallback", true))
	ula := w.own64(w.network, "nat66")
	w.waitReason("guests' addresses are translated to that of eth0")
	if !uniqueLocal.Contains(ula.Addr()) {
		t.Errorf("guests have %s, which isn't unique local", ula)
	}
	addr, err := g.WaitIPv6(w.soon(), ula)
	w.must(err)
	w.seenAs(g, lab.EchoIPv6, host)
	w.pingable(g.Host, lab.InternetIPv6)
	w.pingable(w.Laptop, addr)

	// Another network has another prefix, and neither reaches the other's guests.
	other := w.create("other", dict("ipv6-method", "nat66"))
	otherULA := w.own64(other, "nat66")
	if otherULA.Overlaps(ula) {
		t.Errorf("two networks have %s and %s", ula, otherULA)
	}
	h := w.attached("vm2", other)
	peer, err := h.WaitIPv6(w.soon(), otherULA)
	w.must(err)
	w.seenAs(h, lab.EchoIPv6, host)
	ctx, cancel := context.WithTimeout(w.ctx, 1500*time.Millisecond)
	defer cancel()
	if err := g.Ping(ctx, peer); err == nil {
		t.Errorf("%s reaches %s of the other network", addr, peer)
	}

	// It stays the same over the daemon's deaths.
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		w.kill(sig)
		w.must(w.Daemon().Activate(w.soon()))
		for network, was := range map[godbus.ObjectPath]netip.Prefix{w.network: ula, other: otherULA} {
			if now := w.own64(network, "nat66"); now != was {
				t.Errorf("%s has %s after %v, had %s", network, now, sig, was)
			}
		}
		w.seenAs(g, lab.EchoIPv6, host)
	}
	w.none(wire, "with unique local sources on the wire", lab.Outgoing, lab.SrcIn(uniqueLocal))
	w.noSpoofed()

	w.call(w.network, "Network.Update", dict("nat66-fallback", false))
	w.waitProperty(w.network, "IPv6State", "link-local")
	w.must(ignore(g.WaitNoAddress6(w.soon(), ula)))
	w.must(ignore(g.WaitNoRouter(w.soon(), netip.Addr{})))
}

func ignore(_ time.Duration, err error) error { return err }

// On a link where guests could have addresses of their own, they are translated when the settings say so.
func TestNAT66OnOrdinaryLink(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: wifiAndDesk()[1:]})
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, _ := w.guest6("vm1", prefixB)
	host := w.hostHas("eth0", prefixB)
	w.call(w.network, "Network.Update", dict("ipv6-method", "nat66"))
	ula := w.own64(w.network, "nat66")
	_, _, err := watch.WaitAddress(w.soon(), ula)
	w.must(err)
	_, err = watch.WaitNoAddress(w.soon(), prefixB)
	w.must(err)
	wire := w.cable("eth0")
	w.seenAs(g, lab.EchoIPv6, host)
	w.none(wire, "with guests' own addresses", lab.Outgoing, lab.SrcIn(uniqueLocal))
	w.call(w.network, "Network.Update", dict("ipv6-method", "auto"))
	_, _, err = watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	_, err = watch.WaitNoAddress(w.soon(), ula)
	w.must(err)
	w.must(waitSeen(w, g, prefixB))
}

// translations lists what is tracked of guests' IPv6 flows that were translated to the address.
func (w *world) translations(from netip.Prefix, to netip.Addr) (list []string) {
	w.t.Helper()
	for _, line := range lines(w.run("conntrack", "-L", "-f", "ipv6", "-s", from.String(), "-o", "extended")) {
		if strings.Contains(line, "dst="+to.String()+" ") {
			list = append(list, line)
		}
	}
	return list
}

// endsWithError writes to a connection whose other end never comes back, until the guest is told so.
func (w *world) endsWithError(conn net.Conn) error {
	w.t.Helper()
	w.must(conn.SetDeadline(time.Now().Add(patience)))
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		done <- err
	}()
	for {
		_, err := conn.Write([]byte("still there?\n"))
		select {
		case rerr := <-done:
			err = errors.Join(err, rerr)
		case <-time.After(20 * time.Millisecond): // until the next attempt
		}
		if err != nil {
			return err
		}
	}
}

// Long flows over a switch between two links with a single address each: by docking in, by a cable that is pulled, and from
// a link that is gone to one that came.
func TestNAT66Switch(t *testing.T) {
	t.Parallel()
	sites := singleAddresses()
	sites[1].Unplugged = true
	w := start(t, lab.Options{Sites: sites})
	w.call(w.network, "Network.Update", dict("nat66-fallback", true))
	ula := w.own64(w.network, "nat66")
	for _, key := range []string{"udp_timeout", "udp_timeout_stream"} { // flows are ended, and don't end for want of packets
		w.must(w.Laptop.Sysctl("net.netfilter.nf_conntrack_"+key, "600"))
	}
	g := w.attached("vm1", w.network)
	addr, err := g.WaitIPv6(w.soon(), ula)
	w.must(err)
	hostOn := map[string]netip.Addr{"a": w.hostHas("wlan0", prefixA)}
	w.seenAs(g, lab.EchoIPv6, hostOn["a"])
	wires := []*lab.Capture{w.cable("wlan0"), w.cable("eth0")}
	flow, err := g.ProbeFlow(w.ctx, lab.EchoIPv6, lab.ProbeOptions{Interval: 5 * time.Millisecond})
	w.must(err)
	itself, err := w.Laptop.ProbeSockets(w.ctx, lab.EchoIPv6, lab.ProbeOptions{Interval: 5 * time.Millisecond})
	w.must(err)
	type moment struct {
		what  string
		moved time.Time
		host  netip.Addr
	}
	var moments []moment
	now := "a"
	for _, move := range []struct {
		what, to string
		do       func() error
	}{
		{"docked in", "b", w.Site("b").Plug},
		{"pulled", "a", w.Site("b").Unplug},
		{"roamed", "b", func() error { return errors.Join(w.Site("a").Unplug(), w.Site("b").Plug()) }},
		{"roamed back", "a", func() error { return errors.Join(w.Site("b").Unplug(), w.Site("a").Plug()) }},
	} {
		conn, err := g.DialTCP(w.soon(), lab.EchoIPv6)
		w.must(err)
		w.echoes(conn)
		to := w.Site(move.to)
		moved := time.Now()
		w.must(move.do())
		host := w.hostHas(to.Uplink, to.Options.IPv6)
		w.seenAs(g, lab.EchoIPv6, host)
		old := hostOn[now]
		now, hostOn[move.to] = move.to, host
		sample, err := flow.WaitSuccess(w.soon(), time.Now())
		w.must(err)
		if sample.Seen.Addr() != host {
			t.Errorf("%s: the flow is seen as %s, want %s", move.what, sample.Seen, host)
		}
		err = w.endsWithError(conn)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection hangs: %v", move.what, err)
		}
		w.eventually(fmt.Sprintf("%s: nothing is tracked with the old address %s", move.what, old), func() error {
			if list := w.translations(ula, old); len(list) > 0 {
				return fmt.Errorf("%d are, as %s", len(list), list[0])
			}
			return nil
		})
		t.Logf("%s: the connection ended with: %v", move.what, err)
		moments = append(moments, moment{move.what, moved, host})
		if again, err := g.WaitIPv6(w.soon(), ula); err != nil || again != addr {
			t.Errorf("%s: the guest has %s, %v, had %s", move.what, again, err, addr)
		}
		conn.Close()
	}
	result, own := flow.Finish(), itself.Finish()
	for _, m := range moments {
		t.Logf("%s: by the new address the guest's flow was answered after %s, the host after %s", m.what, firstAs(result, m.moved, m.host), firstAs(own, m.moved, m.host))
	}
	t.Logf("the flow's outages: %v", result.Outages())
	for _, c := range wires {
		w.none(c, "with unique local sources on the wire", lab.Outgoing, lab.SrcIn(uniqueLocal))
	}
	w.noViolations("a")
}

// firstAs is how long it took until the first answer came to what was sent after the time and seen as from the address.
func firstAs(r lab.Result, after time.Time, as netip.Addr) string {
	for _, s := range r.Samples {
		if s.Sent.After(after) && !s.Lost() && s.Seen.Addr() == as {
			return s.Sent.Add(s.RTT).Sub(after).String()
		}
	}
	return "the measurement"
}
