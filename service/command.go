package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"gangway/service/plan"
	"gangway/service/store"
	"gangway/service/vnet"
)

// command is a change of what is wanted. do makes it and returns how to take it back.
type command struct {
	network string
	do      func() (undo func() error, err error)
	reply   chan error
}

// do runs the command in the loop and waits until it is in force, or was taken back.
func (s *Service) do(ctx context.Context, network string, change func() (func() error, error)) error {
	c := &command{network: network, do: change, reply: make(chan error, 1)}
	select {
	case s.commands <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// execute changes what is wanted and makes it so. What can't be put in force is taken
// back: the caller gets an error and nothing has changed.
func (s *Service) execute(ctx context.Context, c *command) error {
	undo, err := c.do()
	if err != nil {
		return err
	}
	errs := s.reconcile(ctx)
	// What concerns all networks comes first: the rest often follows from it.
	failure := errors.Join(errs[""], errs[c.network])
	if c.network == "" {
		failure = errors.Join(slices.Collect(maps.Values(errs))...)
	}
	n, ok := s.Snapshot().Network(c.network)
	if failure == nil && ok && n.State == vnet.FailedNetwork && s.wantsActive(s.definitions[c.network]) {
		failure = vnet.Errorf(vnet.Failed, "%s", n.Reason)
	}
	switch {
	case failure == nil:
		return nil
	case undo == nil && c.network == "":
		return failure
	case undo == nil: // it is done; what failed is something else, and tried again
		return nil
	}
	if err := undo(); err != nil {
		s.log.Error("cannot take a command back", "network", c.network, "error", err)
	}
	s.reconcile(ctx)
	return vnet.Errorf(vnet.KindOf(failure), "network %q: %v", c.network, failure)
}

// CreateNetwork defines a network, stores it, and starts it if its settings say so.
// Errors: NetworkExists, InvalidSetting, NotSupported, SubnetConflict, InUse, LimitExceeded, Failed.
func (s *Service) CreateNetwork(ctx context.Context, name string, values map[string]any) error {
	return s.do(ctx, name, func() (func() error, error) {
		settings, err := s.checkCreate(name, values)
		if err != nil {
			return nil, err
		}
		if settings.Bridge == "" {
			settings.Bridge = s.freeBridge()
		}
		if err := s.define(name, settings); err != nil {
			return nil, err
		}
		return func() error { return s.undefine(name) }, nil
	})
}

// UpdateNetwork merges values into the network's settings and puts them in force.
func (s *Service) UpdateNetwork(ctx context.Context, name string, values map[string]any) error {
	return s.do(ctx, name, func() (func() error, error) {
		settings, err := s.checkUpdate(name, values)
		if err != nil {
			return nil, err
		}
		old := s.definitions[name]
		if settings.Bridge == "" {
			settings.Bridge = old.Settings.Bridge
		}
		// Autostart is about the next start of the daemon: what runs goes on running.
		started := s.wantsActive(old)
		said, wasSaid := s.runtime.Started[name]
		if err := s.define(name, settings); err != nil {
			return nil, err
		}
		undo := func() error {
			err := s.define(name, old.Settings)
			return errors.Join(err, s.changeRuntime(func(r *store.Runtime) {
				if r.Started[name] = said; !wasSaid {
					delete(r.Started, name)
				}
			}))
		}
		if settings.Autostart != old.Settings.Autostart {
			if err := s.changeRuntime(func(r *store.Runtime) { setStarted(r, name, started, settings.Autostart) }); err != nil {
				return nil, errors.Join(err, undo())
			}
		}
		return undo, nil
	})
}

// DeleteNetwork stops the network and forgets everything about it. Where it can't be stopped
// nothing is forgotten, or nobody could ever see what is left of it.
func (s *Service) DeleteNetwork(ctx context.Context, name string) error {
	if err := s.setStarted(ctx, name, false); err != nil {
		return err
	}
	return s.do(ctx, name, func() (func() error, error) {
		if _, err := s.find(name); err != nil {
			return nil, err
		}
		if err := s.undefine(name); err != nil {
			return nil, err
		}
		if outcome := s.rooms.Servers.Apply(ctx, []plan.Op{plan.StopServer{Network: name}, plan.ForgetLeases{Network: name}}); outcome[0].Err != nil || outcome[1].Err != nil {
			s.log.Warn("cannot forget a network's leases", "network", name, "error", outcome)
		}
		return nil, nil
	})
}

// StartNetwork makes the network run until it is stopped; idempotent.
func (s *Service) StartNetwork(ctx context.Context, name string) error {
	return s.setStarted(ctx, name, true)
}

// StopNetwork takes the network down until it is started; idempotent. Ports are
// remembered: they are attached again by the next start.
func (s *Service) StopNetwork(ctx context.Context, name string) error {
	return s.setStarted(ctx, name, false)
}

func (s *Service) setStarted(ctx context.Context, name string, started bool) error {
	return s.do(ctx, name, func() (func() error, error) {
		d, err := s.find(name)
		if err != nil {
			return nil, err
		}
		if started && d.Problem != nil {
			return nil, vnet.Errorf(vnet.Failed, "network %q cannot start: %v", name, d.Problem)
		}
		old, said := s.runtime.Started[name]
		undo := func() error {
			return s.changeRuntime(func(r *store.Runtime) {
				if r.Started[name] = old; !said {
					delete(r.Started, name)
				}
			})
		}
		return undo, s.changeRuntime(func(r *store.Runtime) {
			setStarted(r, name, started, d.Settings.Autostart)
		})
	})
}

// setStarted notes whether a network was started or stopped, where its autostart says otherwise.
func setStarted(r *store.Runtime, name string, started, autostart bool) {
	if r.Started[name] = started; started == autostart {
		delete(r.Started, name)
	}
}

// Attach makes an existing interface a port of the network's bridge on behalf of uid.
// Errors: NoSuchNetwork, InvalidSetting, InUse, LimitExceeded, Failed.
func (s *Service) Attach(ctx context.Context, network, ifname string, options map[string]any, uid uint32) error {
	return s.do(ctx, network, func() (func() error, error) {
		l, err := s.checkAttach(ctx, network, ifname, options)
		if err != nil {
			return nil, err
		}
		old := slices.Clone(s.runtime.Ports[network])
		bridge, was := s.definitions[network].Settings.Bridge, l.Master
		undo := func() error {
			err := s.changeRuntime(func(r *store.Runtime) { r.Ports[network] = old })
			if was == 0 { // no plan takes a port out
				err = errors.Join(err, s.rooms.Kernel.Apply(context.WithoutCancel(ctx), []plan.Op{plan.RemovePort{Bridge: bridge, Interface: ifname, Down: !l.Up}})[0].Err)
			}
			return err
		}
		return undo, s.changeRuntime(func(r *store.Runtime) {
			refs := slices.DeleteFunc(slices.Clone(old), func(p vnet.PortRef) bool { return p.Interface == ifname || !s.exists(p) })
			up := l.Up
			if i := slices.IndexFunc(old, func(p vnet.PortRef) bool { return p.Interface == ifname && p.Index == l.Index }); i >= 0 {
				up = old[i].Up // attached again: it is up because of us
			}
			r.Ports[network] = append(refs, vnet.PortRef{Interface: ifname, Index: l.Index, Owner: uid, Up: up})
		})
	})
}

// Detach takes an interface out of the network's bridge; NoSuchNetwork, InvalidSetting or Failed.
func (s *Service) Detach(ctx context.Context, network, ifname string) error {
	return s.do(ctx, network, func() (func() error, error) {
		if err := s.checkDetach(network, ifname); err != nil {
			return nil, err
		}
		old := slices.Clone(s.runtime.Ports[network])
		isIt := func(p vnet.PortRef) bool { return p.Interface == ifname }
		down := slices.ContainsFunc(old, func(p vnet.PortRef) bool { return isIt(p) && !p.Up })
		if err := s.changeRuntime(func(r *store.Runtime) {
			r.Ports[network] = slices.DeleteFunc(slices.Clone(old), isIt)
		}); err != nil {
			return nil, err
		}
		// A port that somebody else put into the bridge is nothing that a plan would take
		// out, so this is said here.
		bridge := s.definitions[network].Settings.Bridge
		if err := s.rooms.Kernel.Apply(context.WithoutCancel(ctx), []plan.Op{plan.RemovePort{Bridge: bridge, Interface: ifname, Down: down}})[0].Err; err != nil {
			return nil, errors.Join(err, s.changeRuntime(func(r *store.Runtime) { r.Ports[network] = old }))
		}
		return nil, nil
	})
}

// Ports lists the network's ports with fresh counters.
func (s *Service) Ports(ctx context.Context, network string) ([]vnet.Port, error) {
	n, ok := s.Snapshot().Network(network)
	if !ok {
		return nil, vnet.Errorf(vnet.NoSuchNetwork, "there is no network %q", network)
	}
	k, err := s.rooms.Kernel.Observe(ctx, nil)
	if err != nil {
		return nil, err
	}
	bridge, exists := k.LinkByName(n.Bridge)
	if !exists {
		return nil, nil
	}
	learned, err := s.rooms.Kernel.LearnedMACs(ctx, bridge.Index)
	if err != nil {
		return nil, err
	}
	ports := slices.Clone(n.Ports)
	for i := range ports {
		if l, ok := k.LinkByName(ports[i].Interface); ok {
			ports[i].RxBytes, ports[i].TxBytes = l.RxBytes, l.TxBytes
			if mac, ok := learned[l.Index]; ok {
				ports[i].MAC = mac
			}
		}
	}
	return ports, nil
}

// Shutdown takes every network down, so that the machine is as it was. Definitions, leases
// and what was attached are kept for the next start.
func (s *Service) Shutdown(ctx context.Context) error {
	return s.do(ctx, "", func() (func() error, error) {
		s.state.shutdown = true
		return nil, nil
	})
}

func (s *Service) find(name string) (store.Definition, error) {
	d, ok := s.definitions[name]
	if !ok {
		return d, vnet.Errorf(vnet.NoSuchNetwork, "there is no network %q", name)
	}
	return d, nil
}

// define stores a definition; it is in force with the next pass.
func (s *Service) define(name string, settings vnet.Settings) error {
	if err := s.rooms.Store.Save(name, settings); err != nil {
		return err
	}
	s.definitions[name] = store.Definition{Name: name, Settings: settings}
	return nil
}

// undefine forgets a network: its definition, its subnet, its ports, whether it was started.
func (s *Service) undefine(name string) error {
	if err := s.rooms.Store.Delete(name); err != nil {
		return err
	}
	delete(s.definitions, name)
	if err := s.rooms.Store.ForgetSubnet(name); err != nil {
		return err
	}
	return s.changeRuntime(func(r *store.Runtime) {
		delete(r.Ports, name)
		delete(r.Started, name)
	})
}

// changeRuntime changes what lasts until the next boot, on disk first.
func (s *Service) changeRuntime(change func(*store.Runtime)) error {
	r := s.rooms.Store.Runtime() // a copy
	if r.Ports == nil {
		r.Ports = map[string][]vnet.PortRef{}
	}
	if r.Started == nil {
		r.Started = map[string]bool{}
	}
	change(&r)
	if err := s.rooms.Store.SetRuntime(r); err != nil {
		return err
	}
	s.runtime = r
	return nil
}

// nameBridges gives a bridge to definitions that name none.
func (s *Service) nameBridges() {
	for _, name := range s.names() {
		if d := s.definitions[name]; d.Settings.Bridge == "" {
			d.Settings.Bridge = s.freeBridge()
			s.definitions[name] = d
			if d.Problem != nil {
				continue
			}
			if err := s.rooms.Store.Save(name, d.Settings); err != nil {
				s.log.Warn("cannot store the choice of a bridge name", "network", name, "error", err)
			}
		}
	}
}

// freeBridge returns the first of gway0, gway1, … that no definition and no interface has.
func (s *Service) freeBridge() string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("gway%d", i)
		_, exists := s.state.seen.Kernel.LinkByName(name)
		taken := slices.ContainsFunc(s.names(), func(n string) bool { return s.definitions[n].Settings.Bridge == name })
		if !exists && !taken {
			return name
		}
	}
}

func (s *Service) exists(p vnet.PortRef) bool {
	l, ok := s.state.seen.Kernel.LinkByIndex(p.Index)
	return ok && l.Name == p.Interface
}
