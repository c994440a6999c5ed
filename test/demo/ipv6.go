package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gangway/test/lab"
)

// routersOver tells how each guest's default routers and addresses changed since then.
func (w *world) routersOver(begun time.Time) []line {
	var lines []line
	for i, watch := range w.watches {
		say := func(at time.Time, format string, args ...any) {
			lines = append(lines, line{at.Sub(begun), name(w.guests[i]) + ": " + fmt.Sprintf(format, args...)})
		}
		var last lab.IPv6State
		history := watch.History()
		for i, s := range history {
			if s.At.After(begun) {
				for _, r := range last.Routers() {
					if !s.HasRouter(r.Via) {
						say(s.At, "IPv6 default router %s gone (%s)", r.Via, w.whose(r.Via))
					}
				}
				for _, r := range s.Routers() {
					if !last.HasRouter(r.Via) {
						say(s.At, "IPv6 default router %s (%s)", r.Via, w.whose(r.Via))
					}
				}
				for _, a := range usable(s) {
					if !slices.Contains(usable(last), a) && lasts(history[i:], a) {
						say(s.At, "IPv6 address %s usable", a)
					}
				}
			}
			last = s
		}
	}
	return lines
}

// lasts tells whether the address stays usable for a while: Linux takes one that an advertisement deprecates
// once more for a preferred one, for a moment (addrconf_prefix_rcv).
func lasts(history []lab.IPv6State, a netip.Addr) bool {
	for _, s := range history {
		if !slices.Contains(usable(s), a) {
			return s.At.Sub(history[0].At) > 100*time.Millisecond
		}
	}
	return true
}

func name(g *lab.Guest) string { return strings.TrimPrefix(g.Name, "guest-") }

// usable are the global addresses of the state that may be used for new connections.
func usable(s lab.IPv6State) []netip.Addr {
	var list []netip.Addr
	for _, a := range s.Global() {
		if a.Usable() {
			list = append(list, a.Prefix.Addr())
		}
	}
	return list
}

var places = map[string]string{"a": "Wi-Fi's", "b": "the dock's", "c": "the other desk's"}

// whose names the site whose router has the link-local address, or the laptop.
func (w *world) whose(router netip.Addr) string {
	if addresses, err := w.lab.Laptop.Addresses(w.bridge); err == nil && slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr() == router }) {
		return "the laptop"
	}
	for _, s := range w.lab.Sites {
		addresses, err := s.Router.Addresses(s.IPv6Router().Interface)
		if err == nil && slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr() == router }) {
			return places[s.Name]
		}
	}
	return "nobody's"
}

// showIPv6 prints what each guest has of IPv6 at the end of a scene, and why.
func (w *world) showIPv6(s scene, list []*watched) error {
	w.out.text("")
	for _, g := range w.guests {
		state, err := g.IPv6()
		if err != nil {
			return err
		}
		text := "no default router: programs use IPv4 at once"
		if list := usable(state); len(list) > 0 && len(state.Routers()) > 0 {
			text = fmt.Sprintf("%s, router %s (%s)", list[0], state.Routers()[0].Via, w.whose(state.Routers()[0].Via))
		}
		w.out.text(dim(w.out, fmt.Sprintf("   %-8s IPv6  %s", name(g), text)))
	}
	reason, err := w.bus.Object(busName, w.network).GetProperty(busName + ".Network.IPv6Reason")
	if err != nil {
		return err
	}
	w.out.text(dim(w.out, fmt.Sprintf("   %-8s IPv6  %v", "why", reason.Value())))
	for _, p := range list {
		if seen, ok := lastSeen(p.result); p.ipv6 && s.ipv6 && ok {
			w.out.text(dim(w.out, fmt.Sprintf("   %-8s IPv6  sees %s as %s", "internet", p.who, seen)))
		}
	}
	return nil
}

// lastSeen is the address by which the server knew the last who reached it.
func lastSeen(r lab.Result) (netip.Addr, bool) {
	for _, s := range slices.Backward(r.Samples) {
		if s.Seen.IsValid() {
			return s.Seen.Addr(), true
		}
	}
	return netip.Addr{}, false
}
