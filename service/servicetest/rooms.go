package servicetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"gangway/service"
	"gangway/service/plan"
	"gangway/service/store"
	"gangway/service/vnet"
)

// Rooms returns the machine as the rooms of a Service that keeps its files in s.
func (m *Machine) Rooms(s *store.Store) service.Rooms {
	return service.Rooms{Kernel: Kernel{m}, Firewall: Firewall{m}, Servers: Servers{m}, Uplinks: Uplinks{m},
		NDP: NDP{m}, Gate: Gate{m}, Store: Store{s, m}}
}

// Store is the real store, but its operations count for faults, and after the
// process was killed it writes nothing.
type Store struct {
	*store.Store
	m *Machine
}

// Apply carries out the operations one by one.
func (s Store) Apply(ctx context.Context, ops []plan.Op) []plan.Outcome {
	return s.m.apply(ops, func(op plan.Op) (int, error) {
		o := s.Store.Apply(ctx, []plan.Op{op})[0]
		return o.Count, o.Err
	})
}

// live does what only a living process can.
func (s Store) live(f func() error) error {
	if s.m.Killed() {
		return ErrKilled
	}
	return f()
}

// Save is the real one while the process lives.
func (s Store) Save(name string, settings vnet.Settings) error {
	return s.live(func() error { return s.Store.Save(name, settings) })
}

// Delete is the real one while the process lives.
func (s Store) Delete(name string) error {
	return s.live(func() error { return s.Store.Delete(name) })
}

// ForgetSubnet is the real one while the process lives.
func (s Store) ForgetSubnet(name string) error {
	return s.live(func() error { return s.Store.ForgetSubnet(name) })
}

// SetNeverShared is the real one while the process lives.
func (s Store) SetNeverShared(uuid string, never bool) error {
	return s.live(func() error { return s.Store.SetNeverShared(uuid, never) })
}

// SetRuntime is the real one while the process lives.
func (s Store) SetRuntime(r store.Runtime) error {
	return s.live(func() error { return s.Store.SetRuntime(r) })
}

// Firewall is the machine's view for the firewall room.
type Firewall struct{ *Machine }

// Observe shows the chains and sets.
func (f Firewall) Observe(context.Context) (vnet.Firewall, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.filter(), f.observable(plan.FirewallRoom)
}

func (m *Machine) filter() vnet.Firewall {
	fw := vnet.Firewall{Chains: m.chains, Present: m.present, Sets: map[string][]vnet.SetEntry{}, Guards: maps.Clone(m.guards), Forward: m.forward}
	if !fw.Chains {
		fw.Problem = "chains are not in place"
	}
	for set, entries := range m.sets {
		fw.Sets[set] = slices.Clone(entries)
	}
	return fw
}

// Apply carries out the operations of the firewall room.
func (f Firewall) Apply(_ context.Context, ops []plan.Op) []plan.Outcome {
	return f.apply(ops, f.applyFilter)
}

func (m *Machine) applyFilter(op plan.Op) (int, error) {
	switch o := op.(type) {
	case plan.InstallChains:
		m.chains, m.present = true, true
		for _, set := range append(plan.Sets(), plan.Sets6()...) {
			m.sets[set] = append([]vnet.SetEntry{}, m.sets[set]...)
		}
	case plan.RemoveFirewall:
		m.chains, m.present = false, false
		clear(m.sets)
		clear(m.guards)
		m.forward = ""
	case plan.SetForward:
		m.forward, m.present = o.Spec.Digest(), true
	case plan.DeleteForward:
		m.forward = ""
	case plan.SetGuard:
		if o.Spec.Bridge == "" && (m.link(o.Spec.Inner) == nil || m.link(o.Spec.Outer) == nil) || o.Spec.Bridge != "" && m.link(o.Spec.Bridge) == nil {
			return 0, errNoLink
		}
		m.guards[o.Spec.Network] = o.Spec.Digest()
	case plan.DeleteGuard:
		delete(m.guards, o.Network)
	case plan.AddSetEntry:
		entries, exists := m.sets[o.Set]
		switch {
		case !exists:
			return 0, fmt.Errorf("set %s does not exist", o.Set)
		case o.Entry.Interface == "" || !o.Entry.Prefix.IsValid():
			return 0, fmt.Errorf("%v is not an entry", o.Entry)
		case !slices.Contains(entries, o.Entry):
			m.sets[o.Set] = append(entries, o.Entry)
		}
	case plan.DeleteSetEntry:
		if entries, exists := m.sets[o.Set]; exists {
			m.sets[o.Set] = slices.DeleteFunc(entries, func(e vnet.SetEntry) bool { return e == o.Entry })
		}
	case plan.FlushFlows:
		before := len(m.flows)
		m.flows = slices.DeleteFunc(m.flows, func(f vnet.Flow) bool {
			for _, p := range o.Subnets {
				if p.Contains(f.Source) {
					return o.Stale(f)
				}
			}
			return false
		})
		return before - len(m.flows), nil
	default:
		return 0, fmt.Errorf("%T is not an operation of the firewall room", op)
	}
	return 0, nil
}

// Servers is the machine's view for the server room.
type Servers struct{ *Machine }

// Observe shows what runs, and the leases.
func (s Servers) Observe(context.Context) ([]vnet.Server, map[string][]vnet.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, leases := s.running()
	return list, leases, s.observable(plan.ServerRoom)
}

func (m *Machine) running() ([]vnet.Server, map[string][]vnet.Lease) {
	var list []vnet.Server
	for _, name := range slices.Sorted(maps.Keys(m.servers)) {
		list = append(list, m.servers[name])
	}
	leases := map[string][]vnet.Lease{}
	for name, l := range m.leases {
		leases[name] = slices.Clone(l)
	}
	return list, leases
}

// Apply carries out the operations of the server room.
func (s Servers) Apply(_ context.Context, ops []plan.Op) []plan.Outcome {
	return s.apply(ops, func(op plan.Op) (int, error) { return 0, s.applyServer(op) })
}

var errNotRunning = errors.New("it does not run")

func (m *Machine) applyServer(op plan.Op) error {
	switch o := op.(type) {
	case plan.StartServer:
		delete(m.servers, o.Spec.Network)
		l := m.link(o.Spec.Bridge)
		if l == nil || !l.Up || !slices.ContainsFunc(m.addresses, func(a vnet.Address) bool {
			return a.Link == l.Index && a.Prefix == o.Spec.Address
		}) {
			return fmt.Errorf("%s is not up with the address %s", o.Spec.Bridge, o.Spec.Address)
		}
		m.servers[o.Spec.Network] = vnet.Server{Network: o.Spec.Network, PID: m.nextPID,
			Digest: o.Spec.Digest(), HostsDigest: o.Spec.HostsDigest()}
		m.nextPID++
	case plan.StopServer:
		delete(m.servers, o.Network)
	case plan.SetHosts:
		return m.onServer(o.Spec.Network, func(s *vnet.Server) { s.HostsDigest = o.Spec.HostsDigest() })
	case plan.SetUpstreams:
		return m.onServer(o.Network, func(s *vnet.Server) { s.Upstreams, s.KnownUpstreams = slices.Clone(o.Upstreams), true })
	case plan.ForgetLeases:
		delete(m.leases, o.Network)
	default:
		return fmt.Errorf("%T is not an operation of the server room", op)
	}
	return nil
}

func (m *Machine) onServer(network string, f func(*vnet.Server)) error {
	s, ok := m.servers[network]
	if !ok {
		return errNotRunning
	}
	f(&s)
	m.servers[network] = s
	return nil
}
