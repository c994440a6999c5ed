package plan

import (
	"maps"
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// planTeaching keeps what guests go by in step with the routers of the link that they are on. A guest
// behind a bridge never learns that its link changed: left alone, it keeps the old default route for
// half an hour and addresses of the old prefix for days. So what guests may have heard is on record
// before they can hear it, and what is on record and not of their link any more is withdrawn.
func (b *builder) planTeaching() {
	rest := maps.Clone(b.have.NDP.Taught)
	for i := range b.decisions {
		d := &b.decisions[i]
		delete(rest, d.Name)
		taught := b.have.NDP.Taught[d.Name].Routers
		switch {
		case d.Active && d.router != nil:
			b.teachSelf(d, taught)
		case d.Active && d.uplink6 != nil:
			b.teachLink(d, taught)
		default:
			b.withdraw(d, taught, b.whyNone(d))
		}
	}
	for _, network := range sortedKeys(rest) {
		if l, exists := b.ours()[network]; exists && len(rest[network].Routers) > 0 {
			b.add(phaseWithdraw, Withdraw{Network: network, Bridge: l.Name, Routers: rest[network].Routers, Why: "the network is deleted"})
		}
		b.add(phaseRecord, Forget{Network: network})
	}
}

// teachLink is for guests that are bridged to a link: they hear its routers themselves.
func (b *builder) teachLink(d *Decision, taught []vnet.Router) {
	heard := b.have.NDP.Advertised[d.uplink6.Interface]
	b.teach(d, taught, heard.Routers)
	outer, joined := b.outer(d.Name)
	if joined && outer.Master == d.uplink6.Index && !heard.Settled {
		return // a new process, or a replugged cable: who was there may only not have spoken yet
	}
	b.withdraw(d, without6(taught, heard.Routers), "not advertised on "+d.uplink6.Interface)
}

// teachSelf is for guests whose router is their bridge. It stays that when the uplink changes, and one
// advertisement carries old and new: so what it no longer advertises itself is withdrawn when it knows the new.
func (b *builder) teachSelf(d *Decision, taught []vnet.Router) {
	self := []vnet.Router{d.router.self()}
	b.teach(d, taught, self)
	var others []vnet.Router
	why := "not advertised on " + d.router.up.Interface
	for _, r := range without6(taught, self) {
		if !b.isBridge(d, r) {
			others = append(others, r)
			continue
		}
		if _, exists := b.ours()[d.Name]; exists {
			b.add(phaseAnnounce, Withdraw{Network: d.Name, Bridge: d.Bridge, Routers: []vnet.Router{r}, Why: why})
		}
	}
	b.withdraw(d, others, why)
}

func (b *builder) whyNone(d *Decision) string {
	if !d.Active {
		return "the network stops"
	}
	return d.IPv6Reason
}

// withdraw tells guests of the network to forget the routers, if there may be any guests.
func (b *builder) withdraw(d *Decision, routers []vnet.Router, why string) {
	if _, exists := b.ours()[d.Name]; exists && len(routers) > 0 {
		b.add(phaseWithdraw, Withdraw{Network: d.Name, Bridge: d.Bridge, Routers: routers, Why: why})
	}
}

// teach records the routers that guests can hear, or are about to.
func (b *builder) teach(d *Decision, taught, heard []vnet.Router) {
	var news []vnet.Router
	for _, r := range heard {
		t, known := findRouter(taught, r)
		// That a link's router is no default router any more guests hear from itself.
		turned := t.Default != r.Default && (r.Default || b.isBridge(d, r))
		if !known || turned || slices.ContainsFunc(r.Prefixes, func(p netip.Prefix) bool { return !slices.Contains(t.Prefixes, p) }) {
			news = append(news, r)
		}
	}
	if len(news) > 0 {
		b.add(phaseTeach, Teach{Network: d.Name, Uplink: d.Uplink6(), Routers: news})
	}
}

// without6 returns what of taught isn't heard: whole routers, or prefixes that a router no longer has.
// The same router heard by another interface is the same link (a dock and a Wi-Fi of one LAN).
func without6(taught, heard []vnet.Router) []vnet.Router {
	var stale []vnet.Router
	for _, t := range taught {
		h, there := findRouter(heard, t)
		if !there {
			all := t.Prefixes
			t.Default, t.Prefixes = true, nil
			for _, p := range all { // but for what another router advertises as well
				if !slices.ContainsFunc(heard, func(r vnet.Router) bool { return slices.Contains(r.Prefixes, p) }) {
					t.Prefixes = append(t.Prefixes, p)
				}
			}
			stale = append(stale, t)
			continue
		}
		gone := vnet.Router{Address: t.Address, MAC: t.MAC}
		for _, p := range t.Prefixes {
			if !slices.Contains(h.Prefixes, p) {
				gone.Prefixes = append(gone.Prefixes, p)
			}
		}
		if len(gone.Prefixes) > 0 {
			stale = append(stale, gone)
		}
	}
	return stale
}

func findRouter(list []vnet.Router, r vnet.Router) (vnet.Router, bool) {
	i := slices.IndexFunc(list, func(o vnet.Router) bool { return o.Address == r.Address && o.MAC == r.MAC })
	if i < 0 {
		return vnet.Router{}, false
	}
	return list[i], true
}
