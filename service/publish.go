package service

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// initialSnapshot shows the definitions before anything was observed.
func (s *Service) initialSnapshot() *vnet.Snapshot {
	snapshot := &vnet.Snapshot{State: vnet.Offline}
	for _, name := range s.names() {
		d := s.definitions[name]
		n := vnet.NetworkState{Name: name, Settings: d.Settings, State: vnet.Inactive, Bridge: d.Settings.Bridge,
			IPv4State: "off", IPv6State: "off"}
		switch {
		case d.Problem != nil:
			n.State, n.Reason = vnet.FailedNetwork, d.Problem.Error()
		case s.wantsActive(d):
			n.State = vnet.Starting
		}
		snapshot.Networks = append(snapshot.Networks, n)
	}
	return snapshot
}

// snapshot is what a pass shows of the machine.
func snapshotOf(want plan.Want, have vnet.Observed, result plan.Result, errs map[string]error) *vnet.Snapshot {
	snapshot := &vnet.Snapshot{State: vnet.Offline, Primary: have.Uplinks.Primary}
	switch {
	case result.Moored == "":
	case result.Moored == have.Uplinks.Primary:
		snapshot.State = vnet.Online
	default: // guests have left before the host
		snapshot.State = vnet.Switching
	}
	for i, w := range want.Networks {
		snapshot.Networks = append(snapshot.Networks, networkState(w, result.Networks[i], have, errs))
	}
	for _, u := range have.Uplinks.List {
		snapshot.Uplinks = append(snapshot.Uplinks, uplinkState(want, have, u))
	}
	return snapshot
}

func uplinkState(want plan.Want, have vnet.Observed, u vnet.Uplink) vnet.UplinkState {
	state := vnet.UplinkState{Primary: u.Interface == have.Uplinks.Primary, Sharing: plan.Sharing(want, &u)}
	state.IPv6Method, state.IPv6Reason = plan.Method6(want, &have, &u)
	switch {
	case u.Bridge != "":
		state.SharedBridge = u.Bridge
	case plan.UplinkIsBridge(&u):
		state.SharedBridge = u.Interface
	}
	// What was heard of the link's routers counts before what the host made of it.
	if heard := have.NDP.Advertised[u.Interface].Routers; len(heard) > 0 {
		u.Routers, u.Prefixes = nil, nil
		for _, r := range heard {
			if r.Default {
				u.Routers = append(u.Routers, r.Address)
			}
			for _, p := range r.Prefixes {
				if !slices.Contains(u.Prefixes, p) {
					u.Prefixes = append(u.Prefixes, p)
				}
			}
		}
	}
	state.Uplink = u
	return state
}

func networkState(w plan.WantedNetwork, d plan.Decision, have vnet.Observed, errs map[string]error) vnet.NetworkState {
	n := vnet.NetworkState{
		Name: w.Name, Settings: w.Settings.Clone(), State: d.State, Reason: d.Reason, Bridge: d.Bridge,
		Uplink: d.Uplink, Subnet: d.Subnet, Address: d.Address,
		IPv4State: d.IPv4State, IPv4Reason: d.IPv4Reason, IPv6State: d.IPv6State, IPv6Reason: d.IPv6Reason,
		IPv6Prefixes: d.IPv6Prefixes,
	}
	if !d.Active {
		return n
	}
	if n.Uplink == "" {
		n.Uplink = d.Uplink6()
	}
	for _, u := range d.Upstreams {
		if len(u.Domains) == 0 {
			n.Nameservers = append(n.Nameservers, u.Address)
		}
	}
	addresses := map[string][]netip.Addr{}
	for _, g := range have.NDP.Neighbours[w.Name] {
		addresses[g.MAC] = append(addresses[g.MAC], g.Address)
	}
	for _, l := range have.Leases[w.Name] {
		if d.Subnet.Contains(l.Address) { // one of the subnet before a renumbering serves nobody
			l.IPv6 = addresses[l.MAC]
			n.Leases = append(n.Leases, l)
		}
	}
	n.Ports = ports(w, d, have)
	for _, about := range []string{w.Name, ""} {
		if err := errs[about]; err != nil {
			n.State, n.Reason = vnet.Degraded, err.Error()
			if _, exists := have.Kernel.LinkByName(d.Bridge); !exists {
				n.State = vnet.FailedNetwork
			}
			break
		}
	}
	return n
}

// ports lists the ports of a network's bridge without their counters: those change all
// the time and are asked for when somebody wants them.
func ports(w plan.WantedNetwork, d plan.Decision, have vnet.Observed) []vnet.Port {
	bridge, exists := have.Kernel.LinkByName(d.Bridge)
	if !exists {
		return nil
	}
	var list []vnet.Port
	for _, l := range have.Kernel.Links {
		if _, inner := plan.InnerOf(l); l.Master == bridge.Index && !inner {
			list = append(list, port(l, w.Ports))
		}
	}
	slices.SortFunc(list, func(a, b vnet.Port) int { return strings.Compare(a.Interface, b.Interface) })
	return list
}

func port(l vnet.Link, refs []vnet.PortRef) vnet.Port {
	p := vnet.Port{Interface: l.Name, Kind: "attached", MAC: l.MAC}
	for _, r := range refs {
		if r.Index == l.Index {
			p.Owner = r.Owner
		}
	}
	return p
}

// events are what happened between two snapshots, and what the pass did.
func (s *Service) events(before, after *vnet.Snapshot, result plan.Result, report applied) []vnet.Event {
	events := s.renumbered(result, report)
	for _, n := range after.Networks {
		old, _ := before.Network(n.Name)
		events = append(events, leaseEvents(n.Name, old.Leases, n.Leases)...)
		events = append(events, portEvents(n.Name, old.Ports, n.Ports)...)
	}
	return events
}

// switched reports a change of the uplink when its pass is over: an IPv6-only link that has to be made
// takes more than one round.
func (s *Service) switched(result plan.Result, report applied, last bool) []vnet.Event {
	if !s.state.first && result.Moored != s.state.moored {
		s.state.switched = &vnet.Switch{From: s.state.moored, To: result.Moored, Detected: report.detected, NATDone: report.natDone}
	}
	w := s.state.switched
	if w == nil {
		return nil
	}
	w.FlowsFlushed += uint32(report.flowsFlushed)
	w.IPv6Done = max(w.IPv6Done, report.ipv6Done)
	w.Withdrawn = distinct(append(w.Withdrawn, report.withdrawn...))
	w.Announced = distinct(append(w.Announced, report.announced...))
	if !last {
		return nil
	}
	s.state.switched = nil
	return []vnet.Event{{Switched: w}}
}

// renumbered tells of each renumbering once, when nothing of it is left to do.
func (s *Service) renumbered(result plan.Result, report applied) []vnet.Event {
	pending := map[string]vnet.Renumbered{}
	var events []vnet.Event
	for _, d := range result.Networks {
		r, was := s.state.renumbered[d.Name]
		if d.Renumbered != nil && !was {
			r, was = *d.Renumbered, true
		}
		if !was || !d.Active || !d.Subnet.IsValid() {
			continue
		}
		r.New = d.Subnet
		if report.errs[d.Name] != nil {
			pending[d.Name] = r
		} else if r.Old != r.New {
			events = append(events, vnet.Event{Network: d.Name, Renumbered: &r})
		}
	}
	s.state.renumbered = pending
	return events
}

// distinct returns the prefixes in order, each once.
func distinct(list []netip.Prefix) []netip.Prefix {
	var once []netip.Prefix
	for _, p := range list {
		if !slices.Contains(once, p) {
			once = append(once, p)
		}
	}
	return once
}

func leaseEvents(network string, before, after []vnet.Lease) []vnet.Event {
	added, removed := changes(before, after, func(a, b vnet.Lease) bool { return a.MAC == b.MAC && a.Address == b.Address })
	var events []vnet.Event
	for _, l := range added {
		events = append(events, vnet.Event{Network: network, LeaseAdded: &l})
	}
	for _, l := range removed {
		events = append(events, vnet.Event{Network: network, LeaseRemoved: &l})
	}
	return events
}

func portEvents(network string, before, after []vnet.Port) []vnet.Event {
	added, removed := changes(before, after, func(a, b vnet.Port) bool { return a.Interface == b.Interface })
	var events []vnet.Event
	for _, p := range added {
		events = append(events, vnet.Event{Network: network, PortAdded: &p})
	}
	for _, p := range removed {
		events = append(events, vnet.Event{Network: network, PortRemoved: &p})
	}
	return events
}

// changes returns what came and what went between two lists.
func changes[T any](before, after []T, same func(a, b T) bool) (added, removed []T) {
	lacks := func(list []T, v T) bool { return !slices.ContainsFunc(list, func(w T) bool { return same(v, w) }) }
	for _, v := range after {
		if lacks(before, v) {
			added = append(added, v)
		}
	}
	for _, v := range before {
		if lacks(after, v) {
			removed = append(removed, v)
		}
	}
	return added, removed
}

func equal(a, b *vnet.Snapshot) bool { return reflect.DeepEqual(a, b) }
