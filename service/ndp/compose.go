package ndp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gangway/service/ndp/message"
)

// How long what a bridge advertises of itself is good for: as long as it takes guests to notice that the host is gone.
const (
	ownRouter    = 30 * time.Minute
	ownPreferred = 30 * time.Minute
	ownValid     = 2 * time.Hour
)

// composition is what a bridge says as its guests' router.
type composition struct {
	header  message.Header
	options [][]byte
	// current are those of its options that have lifetimes but no prefix, by what they say.
	current map[string][]byte
	// offers tells the default route and the prefixes apart from others, all everything but lifetimes.
	offers, all string
	// least is the shortest lifetime of the router and the prefixes.
	least time.Duration
}

// source is a router whose word a bridge passes on.
type source struct {
	bodies []body // the newest first
	until  time.Time
	stands func(netip.Prefix) bool // it still advertises the prefix
}

// sources are the routers of the network's uplink; as long as it isn't known who they are, what
// guests were told last. false if there is nothing that could be said without taking back what may
// be true.
func (r *Room) sources(n *network, now time.Time) (list []source, ok bool) {
	u := r.uplinks[n.served.spec.Uplink]
	if u != nil && (u.settled || len(u.cache) > 0) {
		for _, k := range slices.SortedFunc(maps.Keys(u.cache), key.compare) {
			heard := u.cache[k]
			list = append(list, source{heard.bodies, heard.until, func(p netip.Prefix) bool { return heard.prefixes[p] != nil }})
		}
		return list, true
	}
	l := n.own()
	if len(l.bodies) == 0 {
		return nil, false
	}
	until := l.bodies[0].at.Add(l.bodies[0].ra.RouterLifetime())
	all := func(netip.Prefix) bool { return true }
	return []source{{l.bodies, until, all}}, until.After(now) || !l.asDefault
}

// compose puts together what the network's bridge says now: nil if there is nothing to be said.
func (r *Room) compose(n *network, now time.Time) *composition {
	l := n.own()
	if l == nil {
		return nil
	}
	spec := n.served.spec
	m := &merge{taught: l.prefixes, prefixes: map[netip.Prefix]message.Prefix{}, options: map[string][]byte{}, mtu: uint32(max(0, spec.MTU))}
	if spec.Proxy {
		sources, ok := r.sources(n, now)
		if !ok {
			return nil
		}
		for _, s := range sources {
			m.add(s, now)
		}
	} else {
		m.header.RouterLifetime = ownRouter
		for _, p := range spec.Prefixes {
			m.prefix(message.Prefix{Prefix: p.Masked(), OnLink: spec.OnLink, Autonomous: true, Valid: ownValid, Preferred: ownPreferred})
		}
	}
	if !spec.Default || !l.asDefault {
		m.header.RouterLifetime = 0
	}
	return m.compose(n.served, l, now)
}

// merge is several routers' word becoming one's.
type merge struct {
	header   message.Header
	taught   map[netip.Prefix]bool
	prefixes map[netip.Prefix]message.Prefix
	// options are the others, by what they say whatever their lifetime, order their order.
	options map[string][]byte
	order   []string
	mtu     uint32
}

// add takes in what a router says: lifetimes are the longest of all.
func (m *merge) add(s source, now time.Time) {
	if len(s.bodies) == 0 {
		return
	}
	m.header.RouterLifetime = max(m.header.RouterLifetime, s.until.Sub(now))
	newest := s.bodies[0]
	if m.header.CurHopLimit == 0 {
		m.header.CurHopLimit = newest.ra.CurHopLimit()
	}
	said := map[string]bool{} // by a newer advertisement, which counts
	for i := range s.bodies {
		if mtu := s.bodies[i].ra.MTU(); mtu >= message.MinimumMTU {
			if m.mtu == 0 || mtu < m.mtu {
				m.mtu = mtu
			}
			break
		}
	}
	for _, b := range s.bodies {
		fresh := newest.at.Sub(b.at) < burst
		age := now.Sub(b.at)
		// One prefix may be there twice, autonomous and on link.
		for _, p := range b.ra.Prefixes() {
			if name := p.Prefix.String(); p.Autonomous && s.stands(p.Prefix) && !said[name] {
				said[name] = true
				p = p.After(age)
				p.OnLink = false
				m.prefix(p)
			}
		}
		for kind, option := range b.ra.Options() {
			if kind == optionPrefix {
				continue
			}
			option = message.Proxied(option, age)
			if option == nil {
				continue
			}
			text := timeless(kind, option)
			left, lasts := message.Remaining(option)
			if said[text] || lasts && left == 0 || !lasts && !fresh {
				said[text] = true
				continue
			}
			said[text] = true
			m.option(text, option, left)
		}
	}
}

// prefix takes in one that guests may have addresses of, if that is on record.
func (m *merge) prefix(p message.Prefix) {
	if p.Prefix.Bits() != slaacBits || !m.taught[p.Prefix] || p.Valid == 0 {
		return
	}
	if old, ok := m.prefixes[p.Prefix]; ok {
		p.Valid, p.Preferred = max(p.Valid, old.Valid), max(p.Preferred, old.Preferred)
	}
	m.prefixes[p.Prefix] = p
}

func (m *merge) option(text string, option []byte, left time.Duration) {
	old, ok := m.options[text]
	if !ok {
		m.order = append(m.order, text)
	}
	if longest, _ := message.Remaining(old); !ok || left > longest {
		m.options[text] = option
	}
}

// compose returns it with what guests are to forget: prefixes that were retired, and options that they
// were told of and that nobody says any more.
func (m *merge) compose(s *served, l *lesson, now time.Time) *composition {
	c := &composition{header: m.header, current: map[string][]byte{}, least: m.header.RouterLifetime}
	c.header.RetransTimer = usual
	var offers, all []string
	note := func(format string, args ...any) { offers = append(offers, fmt.Sprintf(format, args...)) }
	note("%v", m.header.RouterLifetime >= time.Second)
	for _, prefix := range slices.SortedFunc(maps.Keys(m.prefixes), comparePrefixes) {
		p := m.prefixes[prefix]
		c.options = append(c.options, p.Option())
		note("%s %v", prefix, p.Preferred >= time.Second)
		for _, d := range []time.Duration{p.Valid, p.Preferred} {
			if d > 0 && (c.least == 0 || d < c.least) {
				c.least = d
			}
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(l.retired), comparePrefixes) {
		if _, ok := m.prefixes[p]; !ok {
			c.options = append(c.options, message.Prefix{Prefix: p, OnLink: s.spec.OnLink, Autonomous: true}.Option())
			note("no %s", p)
		}
	}
	c.options = append(c.options, message.SourceLinkLayerOption(s.key.mac))
	if m.mtu >= message.MinimumMTU {
		c.options = append(c.options, message.MTUOption(m.mtu))
		all = append(all, fmt.Sprint(m.mtu))
	}
	all = append(all, fmt.Sprint(m.header.CurHopLimit))
	for _, text := range m.order {
		if _, lasts := message.Remaining(m.options[text]); lasts {
			c.current[text] = m.options[text]
		}
		all = append(all, text)
	}
	// First what ends: a server may be in another option, too.
	for _, text := range s.spoken.over(c.current, now) {
		if option := s.spoken.end(text, c.current); option != nil {
			c.options = append(c.options, option)
			all = append(all, "no "+text)
		}
	}
	for _, text := range m.order {
		c.options = append(c.options, m.options[text])
	}
	slices.Sort(all)
	c.offers = strings.Join(offers, "\n")
	c.all = c.offers + "\n" + strings.Join(all, "\n")
	return c
}
