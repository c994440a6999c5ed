package ndp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// Observe listens to exactly these uplinks from now on, those that are Ethernet and no ports of a
// shared bridge, takes note of the networks' bridges and ports in the dump, and returns what is
// known. It doesn't wait for anything to be heard. An uplink that can't be listened to is absent.
func (r *Room) Observe(ctx context.Context, k *vnet.Kernel, uplinks []vnet.Uplink) (vnet.NDP, error) {
	if err := ctx.Err(); err != nil {
		return vnet.NDP{}, fmt.Errorf("cannot observe routers: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return vnet.NDP{}, errors.New("cannot observe routers: the room is closed")
	}
	now := r.now()
	r.look(k)
	r.listenToUplinks(uplinks, now)
	r.seeNetworks(now)
	r.listenToGuests()
	r.listenToNeighbours()
	r.settleQuestions(now)
	r.tick(now)
	r.changed = "" // it is shown now
	r.hurry()
	return r.shown(), nil
}

// kernelProxy is an address that the kernel answers for on a link.
type kernelProxy struct {
	address netip.Addr
	link    int
}

// look keeps the dump, and what leads from a bridge to its ports: there may be many of both.
func (r *Room) look(k *vnet.Kernel) {
	r.kernel, r.bridges, r.members, r.answered = *k, map[string]vnet.Link{}, map[int][]vnet.Link{}, map[kernelProxy]bool{}
	for _, p := range k.Proxies {
		if p.Protocol == plan.Protocol {
			r.answered[kernelProxy{p.Address, p.Link}] = true
		}
	}
	for _, l := range k.Links {
		if l.Kind == "bridge" {
			r.bridges[l.Name] = l
			if strings.HasPrefix(l.Alias, plan.AliasPrefix) {
				r.bridges[l.Alias] = l // no interface's name has a colon
			}
		}
		if l.Master != 0 {
			r.members[l.Master] = append(r.members[l.Master], l)
		}
	}
}

func (r *Room) shown() vnet.NDP {
	all := vnet.NDP{Advertised: map[string]vnet.Advertised{}, Taught: map[string]vnet.Taught{},
		Serving: map[string]vnet.Served{}, Neighbours: map[string][]vnet.Neighbour{}}
	for name, u := range r.uplinks {
		all.Advertised[name] = vnet.Advertised{Interface: name, Routers: u.cache.shown(), Settled: u.settled}
	}
	for name, n := range r.networks {
		if t, ok := n.shown(name); ok {
			all.Taught[name] = t
		}
		if s := n.served; s != nil {
			all.Serving[name] = vnet.Served{Digest: s.spec.Digest(), Uplink: s.spec.Uplink}
		}
		if list := r.shownNeighbours(n); len(list) > 0 {
			all.Neighbours[name] = list
		}
	}
	return all
}

// listenToUplinks opens and closes what is to be.
func (r *Room) listenToUplinks(uplinks []vnet.Uplink, now time.Time) {
	wanted := map[string]vnet.Link{}
	for _, u := range uplinks {
		l, ok := r.kernel.LinkByName(u.Interface)
		if ok && u.Bridge == "" && l.Type == ethernetType {
			wanted[u.Interface] = l
		}
	}
	for name, u := range r.uplinks {
		if l, ok := wanted[name]; !ok || l.Index != u.listener.index || u.dead {
			u.close()
			delete(r.uplinks, name)
		}
	}
	for name, l := range wanted {
		u := r.uplinks[name]
		if u == nil {
			var err error
			if u, err = r.openUplink(name, l.Index); err != nil {
				if !r.deaf[name] { // once, not in each pass
					r.log.Warn("routers can't be heard", "error", err)
				}
				r.deaf[name] = true
				continue
			}
			delete(r.deaf, name)
			r.uplinks[name] = u
		}
		u.link(l, r.linkLocal(l.Index), now)
	}
}

// linkLocal is the interface's own address, the unspecified one if it has none that it may use.
func (r *Room) linkLocal(index int) netip.Addr {
	for _, a := range r.kernel.Addresses {
		if addr := a.Prefix.Addr(); a.Link == index && addr.Is6() && addr.IsLinkLocalUnicast() && !a.Tentative {
			return addr
		}
	}
	return netip.IPv6Unspecified()
}

// seeNetworks looks where the networks' guests are, and tells those who came of what was withdrawn.
func (r *Room) seeNetworks(now time.Time) {
	for alias := range r.bridges {
		if name, ours := strings.CutPrefix(alias, plan.AliasPrefix); ours && vnet.ValidateNetworkName(name) == nil {
			r.network(name)
		}
	}
	for name, n := range r.networks {
		before := n.ports
		r.place(name, n)
		if n.index != 0 && n.untold {
			n.untold = false
			for _, l := range n.lessons {
				if l.withdrawn() {
					l.told = now
				}
			}
			n.repeatFrom(now)
		}
		r.recover(n, now)
		heard := false
		for index, p := range n.ports {
			if old := before[index]; (n.withdrawn() || n.served != nil) && p.carrier && (old == nil || !old.carrier) {
				if !heard { // what it is told may have it ask for addresses in the same moment
					r.listenToGuests()
					heard = true
				}
				r.greet(n, index, now)
			}
		}
		if n.index == 0 && len(n.lessons) == 0 && n.served == nil {
			delete(r.networks, name)
		}
	}
}

// place finds the network's bridge and guest ports in the last dump: by our alias, else by the name
// that operations had.
func (r *Room) place(name string, n *network) {
	n.index, n.linked = 0, false
	if bridge, ok := r.bridges[plan.AliasPrefix+name]; ok {
		n.index = bridge.Index
	} else if bridge := r.bridges[n.bridge]; !strings.HasPrefix(bridge.Alias, plan.AliasPrefix) { // another network's may have its name
		n.index = bridge.Index
	}
	before := n.ports
	n.ports = map[int]*port{}
	for _, l := range r.members[n.index] {
		switch {
		case n.isPair(l):
			n.linked = true
		default:
			p := port{carrier: l.Up && l.Carrier}
			if old := before[l.Index]; old != nil {
				p.again = old.again
			}
			n.ports[l.Index] = &p
		}
	}
	for index := range before {
		if n.ports[index] == nil {
			n.neighbours.leave(index, r.now())
			n.dropClaims(index)
		}
	}
}

// isPair tells whether a link is an end of an IPv6-only link, behind which is an uplink.
func (n *network) isPair(l vnet.Link) bool {
	return strings.HasPrefix(l.Alias, plan.InnerAliasPrefix) || strings.HasPrefix(l.Alias, plan.OuterAliasPrefix) ||
		l.Group&plan.GroupMask == plan.GroupPair || n.inner != "" && l.Name == n.inner
}

// listened tells whether the network's guests are listened to.
func (n *network) listened() bool { return n.linked || n.served != nil || n.withdrawn() }

// listenToGuests opens and closes taps: on the ports of networks that are linked to an uplink, since
// their guests will have to be found on another, of those that are served by their bridge, and of those
// that something was withdrawn from.
func (r *Room) listenToGuests() {
	wanted := map[int]string{}
	for name, n := range r.networks {
		if n.listened() {
			for index := range n.ports {
				wanted[index] = name
			}
		}
	}
	for index, t := range r.taps {
		if wanted[index] != t.network || t.dead {
			t.listener.close()
			delete(r.taps, index)
		}
	}
	for index, name := range wanted {
		if r.taps[index] != nil {
			continue
		}
		t, err := r.openTap(name, index)
		if err != nil {
			r.log.Debug("guests can't be heard", "port", index, "error", err)
			continue
		}
		r.taps[index] = t
	}
}
