package system_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

// station adds a neighbour of the laptop to a site, which has an address of the prefix on return.
func (w *world) station(site, name string, within netip.Prefix, o lab.MachineOptions) (*lab.Station, netip.Addr) {
	w.t.Helper()
	st, err := w.Site(site).AddStation(w.ctx, name, lab.StationOptions{MachineOptions: o})
	w.must(err)
	addr, err := st.WaitIPv6(w.soon(), within)
	w.must(err)
	return st, addr
}

// guestWith is guest6 for a network and a machine of one's choice, without a watch.
func (w *world) guestWith(name, network string, within netip.Prefix, o lab.MachineOptions) (*lab.Guest, netip.Addr) {
	w.t.Helper()
	g, err := w.AddGuestWith(w.ctx, name, o)
	w.must(err)
	w.call(root+"/network/"+godbus.ObjectPath(network), "Network.Attach", g.Port, options{})
	addr, err := g.WaitIPv6(w.soon(), within)
	w.must(err)
	return g, addr
}

// tries has a machine give itself an address, and tells whether it is another's. No route comes with it: the prefix of proxied guests is not their link's.
func (w *world) tries(m *lab.Machine, a netip.Addr) (duplicate bool) {
	w.t.Helper()
	_, err := m.Run(w.ctx, "ip", "addr", "replace", a.String()+"/128", "dev", lab.GuestInterface)
	w.must(err)
	w.eventually(fmt.Sprintf("%s knows whether %s is free", m.Name, a), func() error {
		state, err := m.IPv6()
		if err != nil {
			return err
		}
		for _, have := range state.Addresses {
			if have.Prefix.Addr() == a && (have.Failed || !have.Tentative) {
				duplicate = have.Failed
				return nil
			}
		}
		return fmt.Errorf("its addresses are %v", state.Addresses)
	})
	return duplicate
}

// leaves has a machine give up an address.
func (w *world) leaves(m *lab.Machine, a netip.Addr) {
	w.t.Helper()
	_, err := m.Run(w.ctx, "ip", "addr", "del", a.String()+"/128", "dev", lab.GuestInterface)
	w.must(err)
}

// known waits until the kernel of the laptop routes to the guest, and, on a link that is shared, answers for it.
func (w *world) known(a netip.Addr) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s is known", a), func() error {
		if w.run("ip", "-6", "route", "show", a.String()+"/128", "proto", "147") == "" || w.run("ip", "-6", "neigh", "show", "proxy", a.String()) == "" {
			return fmt.Errorf("%s\n%s", w.run("ip", "-6", "route", "show"), w.run("ip", "-6", "neigh", "show", "proxy"))
		}
		return nil
	})
}

// nth6 returns an address of the prefix, by the last of its groups.
func nth6(p netip.Prefix, n uint16) netip.Addr {
	a := p.Masked().Addr().As16()
	a[14], a[15] = byte(n>>8), byte(n)
	return netip.AddrFrom16(a)
}

// prompt sends what duplicate address detection sends at once, and takes its own question for another's when it comes back
// (RFC 7527), as systems other than Linux do.
var prompt = lab.MachineOptions{Sysctl: map[string]string{"net.ipv6.conf.eth0.router_solicitation_delay": "0",
	"net.ipv6.conf.eth0.enhanced_dad": "0", "net.ipv6.conf.all.enhanced_dad": "0"}}

// Two who want the same address on a link where guests are proxied: whoever they are, at most one has it.
func TestProxiedDuplicates(t *testing.T) {
	t.Parallel()
	w := onWiFi(t, lab.Options{})
	other := w.create("other", options{})
	w.waitProperty(other, "IPv6State", "proxy")
	g, addrG := w.guestWith("vm1", "default", prefixA, prompt)
	h, addrH := w.guestWith("vm2", "other", prefixA, prompt)
	st, stA := w.station("a", "lan", prefixA, prompt)
	hostA, err := w.Laptop.WaitAddress(w.soon(), "wlan0", prefixA)
	w.must(err)
	heard, err := g.Capture(w.ctx, lab.GuestInterface)
	w.must(err)
	w.known(addrG)
	w.known(addrH)
	for _, c := range []struct {
		what string
		who  *lab.Machine
		has  netip.Addr
	}{
		{"a guest tries a station's address", g.Machine, stA},
		{"a guest tries the host's address", g.Machine, hostA},
		{"a guest tries the router's address", g.Machine, w.Site("a").RouterIPv6},
		{"a guest tries that of a guest of another network", g.Machine, addrH},
		{"a station tries a guest's address", st.Machine, addrG},
		{"a station tries that of the other network's", st.Machine, addrH},
	} {
		if !w.tries(c.who, c.has) {
			t.Errorf("%s, and has it", c.what)
		}
		w.leaves(c.who, c.has)
	}
	// What was tried in vain is nobody's but the holder's.
	for _, p := range []struct {
		from *lab.Host
		to   netip.Addr
	}{{st.Host, addrG}, {st.Host, addrH}, {g.Host, stA}, {w.Laptop, stA}, {st.Host, hostA}} {
		w.pingable(p.from, p.to)
	}

	// The second asks while the first waits for an answer, which neither may give yet: they don't both have it.
	for i, two := range [][2]*lab.Machine{{g.Machine, st.Machine}, {st.Machine, g.Machine}, {g.Machine, h.Machine}} {
		a := nth6(prefixA, 0x100+uint16(i))
		asked, err := two[0].Capture(w.ctx, lab.GuestInterface)
		w.must(err)
		var duplicate [2]bool
		var first sync.WaitGroup
		first.Go(func() { duplicate[0] = w.tries(two[0], a) })
		_, err = asked.Wait(w.soon(), lab.All(lab.Outgoing, lab.IsDAD, lab.About(a)))
		w.must(err)
		duplicate[1] = w.tries(two[1], a)
		first.Wait()
		if t.Logf("%s and then %s try %s: a duplicate to them: %v", two[0].Name, two[1].Name, a, duplicate); !duplicate[0] && !duplicate[1] {
			t.Errorf("both %s and %s have %s", two[0].Name, two[1].Name, a)
		}
		for _, m := range two {
			w.leaves(m, a)
		}
	}

	// A free one is had, though the access point sends the laptop's own question back.
	free := nth6(prefixA, 0x200)
	if w.tries(g.Machine, free) {
		t.Error("a guest doesn't have an address that nobody else tries")
	}
	w.pingable(st.Host, free)
	w.none(heard, "the guest's own question, sent back to it", lab.Incoming, lab.IsDAD, lab.About(free))
	w.noViolations("a")
}
