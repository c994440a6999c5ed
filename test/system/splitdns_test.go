package system_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"gangway/test/lab"
)

// TestSplitDNS has an uplink that is not for everything, as an office's is beside a home's: guests ask its server
// for its domains and for nothing else, and as long as it is there.
func TestSplitDNS(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{NMResolvConf: true})
	a, b := w.Site("a"), w.Site("b")
	w.routeDomain(b, "corp.example")
	w.must(w.NM.WaitPrimary(w.soon(), a.Uplink))
	w.waitUplink(w.network, a.Uplink)
	g, _ := w.guest("one", w.network)

	w.resolves(g.Host, "a")
	w.asksOnly(g, b, "corp.example")

	// A domain that both sites' servers know: the answer itself tells whose it is.
	w.routeDomain(b, "site.example")
	w.resolves(g.Host, "b")
	w.asksOnly(g, a, "corp.example")
	w.reachesBy(g.Host, "a")

	w.routeDomain(b, "corp.example")
	w.resolves(g.Host, "a")
	w.asksOnly(g, b, "corp.example")

	w.must(b.Unplug())
	w.asksOnly(g, a, "corp.example")
	w.resolves(g.Host, "a")

	w.must(b.Plug())
	w.asksOnly(g, b, "corp.example")
	w.resolves(g.Host, "a")
}

// fresh numbers the names asked for.
var fresh atomic.Int64

// routeDomain makes the site's profile one that is not for everything, but for the domain.
func (w *world) routeDomain(s *lab.Site, domain string) {
	w.t.Helper()
	_, err := w.NM.Cli(w.soon(), "connection", "modify", s.Uplink, "ipv4.never-default", "yes", "ipv4.dns-search", "~"+domain,
		"ipv6.never-default", "yes", "ipv6.dns-search", "~"+domain)
	w.must(err)
	_, err = w.NM.Cli(w.soon(), "device", "reapply", s.Uplink)
	w.must(err)
}

// asksOnly waits until a guest's query for a name in the domain gets to the site's server, and then fails if any
// of ten more doesn't, or any for other domains in between gets elsewhere than to site a's: among servers of
// equal rank dnsmasq would choose one and stay with it for a while.
func (w *world) asksOnly(g *lab.Guest, site *lab.Site, domain string) {
	w.t.Helper()
	w.eventually("queries for "+domain+" go to site "+site.Name, func() error {
		name, asked, err := w.asked(g, domain)
		if err == nil && !slices.Equal(asked, []string{site.Name}) {
			err = fmt.Errorf("%s was asked of %v", name, asked)
		}
		return err
	})
	for range 10 {
		w.asks(g, "a", "notcorp.example")
		w.asks(g, "a", "elsewhere.example")
		w.asks(g, site.Name, domain)
	}
}

// asks repeats a query until it is answered, and fails if any attempt gets to another site than that.
func (w *world) asks(g *lab.Guest, site, domain string) {
	w.t.Helper()
	w.eventually("a query for "+domain+" is answered", func() error {
		name, asked, err := w.asked(g, domain)
		if len(asked) > 0 && !slices.Equal(asked, []string{site}) {
			w.t.Fatalf("%s was asked of %v, want %s", name, asked, site)
		}
		return err
	})
}

// asked sends a guest's query for a name in the domain that was never asked for before, so that no cache
// answers, and returns the sites whose servers saw it. The error is that of an answer that didn't come.
func (w *world) asked(g *lab.Guest, domain string) (name string, sites []string, err error) {
	w.t.Helper()
	name = fmt.Sprintf("host%d.%s", fresh.Add(1), domain)
	gateway := netip.AddrPortFrom(netip.MustParsePrefix(w.text(w.network, "Address")).Addr(), 53)
	_, err = g.Query(w.ctx, gateway, name, lab.TypeA)
	for _, s := range w.Sites {
		queries, failed := s.Queries()
		w.must(failed)
		if slices.ContainsFunc(queries, func(q lab.DNSQuery) bool { return q.Name == name }) {
			sites = append(sites, s.Name)
		}
	}
	return name, sites, err
}
