package plan

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// own64 returns the /64 of the network's own, of a prefix that its settings name or that is delegated to
// the uplink: the one that it had before, if that is still there, so that guests keep their addresses;
// else one that follows from its name and that nobody has. why is a sentence where there is none.
func (b *builder) own64(d *Decision, u *vnet.Uplink) (p netip.Prefix, why string) {
	var from []netip.Prefix
	if d.settings.IPv6Prefix.IsValid() {
		from = []netip.Prefix{d.settings.IPv6Prefix}
	} else {
		from = u.Delegated
	}
	for _, whole := range from {
		if whole.Bits() > slaacBits {
			why = fmt.Sprintf("%s, which is delegated to %s, is smaller than a /64", whole, u.Interface)
			continue
		}
		if p, ok := b.choose64(d, whole); ok {
			return p, ""
		}
		why = fmt.Sprintf("the prefix %s is used up: each network needs a /64 of its own", whole)
	}
	return noPrefix, why
}

// maxSlots bounds how many /64s of a prefix are tried: far more than there may be networks.
const maxSlots = 1 << 12

func (b *builder) choose64(d *Decision, whole netip.Prefix) (netip.Prefix, bool) {
	taken := b.taken64(d, whole)
	free := func(p netip.Prefix) bool {
		return !slices.ContainsFunc(taken, func(t netip.Prefix) bool { return t.Overlaps(p) })
	}
	if p := b.remembered64(d.Name); p.IsValid() && whole.Contains(p.Addr()) && free(p) {
		return p, true
	}
	slots := uint64(1) << min(slaacBits-whole.Bits(), 32)
	h := fnv.New32a()
	_, _ = h.Write([]byte(d.Name)) // never fails
	first := uint64(h.Sum32()) % slots
	for i := range min(slots, maxSlots) {
		if p := nth64(whole, (first+i)%slots); free(p) {
			return p, true
		}
	}
	return noPrefix, false
}

// taken64 are the prefixes within whole that aren't to be had: other networks', and what the host has
// addresses of or routes to.
func (b *builder) taken64(d *Decision, whole netip.Prefix) []netip.Prefix {
	var taken []netip.Prefix
	add := func(p netip.Prefix) {
		if p = p.Masked(); p.IsValid() && p.Addr().Is6() && p.Bits() > whole.Bits() && whole.Contains(p.Addr()) {
			taken = append(taken, p)
		}
	}
	for i := range b.decisions {
		o := &b.decisions[i]
		if o.Name == d.Name {
			continue
		}
		switch {
		case o.router != nil && o.router.onLink: // decided before this one
			taken = append(taken, o.router.prefixes...)
		case o.settings.IPv6Method == d.settings.IPv6Method || o.settings.IPv6Method == "auto":
			add(b.remembered64(o.Name)) // it keeps what it had
		}
	}
	ours := map[int]bool{}
	for _, l := range b.ours() {
		ours[l.Index] = true
	}
	for _, a := range b.have.Kernel.Addresses {
		if !ours[a.Link] && isGlobal6(a.Prefix.Addr()) {
			add(netip.PrefixFrom(a.Prefix.Addr(), max(slaacBits, a.Prefix.Bits())))
		}
	}
	for _, r := range b.have.Kernel.Routes6 {
		if !ours[r.Link] && r.Protocol != Protocol && r.Type == vnet.RouteUnicast {
			add(r.Dst)
		}
	}
	return taken
}

func (b *builder) remembered64(network string) netip.Prefix {
	i := slices.IndexFunc(b.want.Networks, func(w WantedNetwork) bool { return w.Name == network })
	if i < 0 {
		return noPrefix
	}
	return b.want.Networks[i].Remembered6
}

// nth64 returns a /64 of a prefix, counted from 0.
func nth64(whole netip.Prefix, n uint64) netip.Prefix {
	a := whole.Masked().Addr().As16()
	binary.BigEndian.PutUint64(a[:], binary.BigEndian.Uint64(a[:])|n)
	return netip.PrefixFrom(netip.AddrFrom16(a), slaacBits)
}

// planMemory6 remembers the /64s that were chosen.
func (b *builder) planMemory6() {
	for _, d := range b.active() {
		if d.IPv6State == "routed" && d.IPv6Prefixes[0] != b.remembered64(d.Name) {
			b.add(phaseMemory, RememberPrefix{Network: d.Name, Prefix: d.IPv6Prefixes[0]})
		}
	}
}
