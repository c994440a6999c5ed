package servicetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// Kernel is the machine's view for the link room.
type Kernel struct{ *Machine }

var errNoLink = errors.New("no such link")

// Observe shows the state. Slices are copies.
func (k Kernel) Observe(_ context.Context, keys []string) (vnet.Kernel, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.observes++
	if err := k.observable(plan.LinkRoom); err != nil {
		return vnet.Kernel{}, err
	}
	return k.kernel(keys), nil
}

func (m *Machine) kernel(keys []string) vnet.Kernel {
	k := vnet.Kernel{
		Links:        slices.Clone(m.links),
		Addresses:    slices.Clone(m.addresses),
		Proxies:      slices.Clone(m.proxies),
		Sysctls:      map[string]string{},
		SavedSysctls: maps.Clone(m.saved),
	}
	for _, r := range m.routes {
		if r.Dst.Addr().Is4() {
			k.Routes = append(k.Routes, r)
		} else {
			k.Routes6 = append(k.Routes6, r)
		}
	}
	for _, r := range m.rules {
		if r.IPv6 {
			k.Rules6 = append(k.Rules6, r)
		} else {
			k.Rules = append(k.Rules, r)
		}
	}
	names := []string{"all", "default"}
	for _, l := range m.links {
		names = append(names, l.Name)
	}
	for _, name := range names {
		keys = append(keys[:len(keys):len(keys)], "net/ipv4/conf/"+name+"/forwarding", "net/ipv4/conf/"+name+"/rp_filter",
			"net/ipv6/conf/"+name+"/forwarding", "net/ipv6/conf/"+name+"/proxy_ndp")
	}
	for _, key := range keys {
		if v, ok := m.sysctls[key]; ok {
			k.Sysctls[key] = v
		}
	}
	return k
}

// LearnedMACs returns what SetLearned said.
func (k Kernel) LearnedMACs(context.Context, int) (map[int]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.learned), nil
}

// Watch pokes after each change from outside.
func (m *Machine) Watch(ctx context.Context, poke func(string)) error {
	m.mu.Lock()
	id := m.nextID
	m.nextID++
	m.watchers[id] = poke
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watchers, id)
		m.mu.Unlock()
	}()
	select {
	case err := <-m.endWatch:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// EndWatch makes one of the watchers give up with the error.
func (m *Machine) EndWatch(err error) { m.endWatch <- err }

// Apply carries out the operations of the link room.
func (k Kernel) Apply(_ context.Context, ops []plan.Op) []plan.Outcome {
	return k.apply(ops, func(op plan.Op) (int, error) { return 0, k.applyLink(op) })
}

func (m *Machine) applyLink(op plan.Op) error {
	switch o := op.(type) {
	case plan.CreateBridge:
		return m.createBridge(o, true)
	case plan.DeleteBridge:
		if l := m.link(o.Name); l != nil && l.Kind == "bridge" && l.Alias == o.Alias {
			m.removeLink(o.Name)
		}
		return nil
	case plan.SetLinkUp:
		defer m.settleBridges()
		return m.onLink(o.Name, func(l *vnet.Link) {
			m.setUp(l, true)
			l.Carrier = l.Carrier || l.Group == plan.GroupPair
		})
	case plan.CreatePair, plan.JoinBridge, plan.LeaveBridge, plan.FlushPort, plan.SetLinkDown, plan.DeletePair:
		return m.applyPair(op)
	case plan.SetMTU:
		return m.onLink(o.Name, func(l *vnet.Link) { l.MTU = o.MTU })
	case plan.SetMAC:
		return m.onLink(o.Name, func(l *vnet.Link) { l.MAC = o.MAC })
	case plan.SetGroup:
		return m.onLink(o.Name, func(l *vnet.Link) { l.Group = o.Group })
	case plan.SetMulticastSnooping:
		return m.onLink(o.Name, func(l *vnet.Link) { l.MulticastSnooping = o.On })
	case plan.AddAddress:
		return m.onLink(o.Link, func(l *vnet.Link) { m.addAddress(l.Index, o.Prefix) })
	case plan.DeleteAddress:
		if l := m.link(o.Link); l != nil {
			m.removeAddress(l.Index, o.Prefix)
		}
		return nil
	case plan.AddPort, plan.RemovePort, plan.IsolatePort, plan.BouncePort:
		return m.applyPort(op)
	case plan.AddProxy, plan.DeleteProxy:
		return m.applyProxy(op)
	case plan.AddRule:
		if !slices.Contains(m.rules, o.Rule) {
			m.rules = append(m.rules, o.Rule)
			slices.SortStableFunc(m.rules, func(a, b vnet.Rule) int { return a.Priority - b.Priority })
		}
		return nil
	case plan.DeleteRule:
		if i := slices.Index(m.rules, o.Rule); i >= 0 {
			m.rules = slices.Delete(m.rules, i, i+1)
		}
		return nil
	case plan.ReplaceRoute:
		return m.replaceRoute(o)
	case plan.DeleteRoute:
		if i := slices.Index(m.routes, o.Route); i >= 0 {
			m.routes = slices.Delete(m.routes, i, i+1)
		}
		return nil
	case plan.SetSysctl, plan.BorrowSysctl, plan.ReturnSysctl:
		return m.applySysctl(op)
	}
	return fmt.Errorf("%T is not an operation of the link room", op)
}

func (m *Machine) onLink(name string, f func(*vnet.Link)) error {
	l := m.link(name)
	if l == nil {
		return fmt.Errorf("%s: %w", name, errNoLink)
	}
	f(l)
	return nil
}

// createBridge makes a bridge, completes one that was left half made, or finds it whole.
func (m *Machine) createBridge(o plan.CreateBridge, whole bool) error {
	l := m.link(o.Name)
	switch {
	case l == nil:
		m.addLink(vnet.Link{Index: m.nextOwn, Name: o.Name, Kind: "bridge", Type: 1, MAC: o.MAC, MTU: o.MTU, Group: o.Group})
		m.nextOwn++
		l = m.link(o.Name)
	case l.Kind == "bridge" && l.Alias == o.Alias:
	case l.Kind == "bridge" && l.Alias == "" && !l.Up && l.MAC == o.MAC && l.Group&plan.GroupMask == plan.GroupBridge:
	default:
		return fmt.Errorf("%s exists and is not ours", o.Name)
	}
	m.sysctls["net/ipv6/conf/"+o.Name+"/accept_ra"] = "0"
	if whole {
		l.MAC, l.MTU, l.Group, l.MulticastSnooping, l.Alias = o.MAC, o.MTU, o.Group, false, o.Alias
	}
	return nil
}

func (m *Machine) applyPort(op plan.Op) error {
	switch o := op.(type) {
	case plan.AddPort:
		bridge, l := m.link(o.Bridge), m.link(o.Interface)
		switch {
		case bridge == nil || l == nil:
			return errNoLink
		case !isTagged(*bridge):
			return fmt.Errorf("%s is not a bridge of ours", o.Bridge)
		case l.Index != o.Index:
			return errors.New("another interface has the name now")
		case l.Master != 0 && l.Master != bridge.Index:
			return fmt.Errorf("it is a port of %s", m.nameOf(l.Master))
		}
		l.Master, l.Isolated = bridge.Index, o.Isolated
		bridge.Carrier = true
		m.setUp(l, true)
	case plan.RemovePort:
		bridge, l := m.link(o.Bridge), m.link(o.Interface)
		if bridge != nil && l != nil && l.Master == bridge.Index {
			l.Master, l.Isolated = 0, false
			if o.Down {
				m.setUp(l, false)
			}
		}
	case plan.IsolatePort:
		l := m.link(o.Interface)
		if l == nil || l.Master == 0 {
			return errors.New("it is not a port of a bridge")
		}
		l.Isolated = o.On
	case plan.BouncePort:
		if l := m.link(o.Interface); l != nil && l.Master == 0 {
			return errors.New("it is not a port of a bridge")
		} else if l != nil {
			m.setUp(l, true)
		}
	}
	return nil
}

func (m *Machine) replaceRoute(o plan.ReplaceRoute) error {
	r := o.Route
	if r.Type == vnet.RouteUnicast {
		if r.Link == 0 {
			if l := m.link(o.LinkName); l != nil {
				r.Link = l.Index
			}
		}
		l := m.linkByIndex(r.Link)
		switch {
		case l == nil:
			return errNoLink
		case !l.Up:
			return errors.New("network is down")
		case r.Gateway.IsValid() && !r.OnLink && !r.Gateway.IsLinkLocalUnicast() && !slices.ContainsFunc(m.routes, func(c vnet.Route) bool {
			return c.Table == mainTable && c.Link == r.Link && !c.Gateway.IsValid() && c.Dst.Bits() > 0 && c.Dst.Contains(r.Gateway)
		}):
			return errors.New("nexthop has invalid gateway")
		}
	}
	for i, h := range m.routes {
		if h.Table == r.Table && h.Dst == r.Dst && h.Metric == r.Metric {
			m.routes[i] = r
			return nil
		}
	}
	m.routes = append(m.routes, r)
	return nil
}

func (m *Machine) applySysctl(op plan.Op) error {
	switch o := op.(type) {
	case plan.SetSysctl:
		if _, ok := m.sysctls[o.Key]; !ok {
			return errors.New("no such sysctl")
		}
		m.setSysctl(o.Key, o.Value)
	case plan.BorrowSysctl:
		have, ok := m.sysctls[o.Key]
		if !ok {
			return errors.New("no such sysctl")
		}
		if have == o.Value {
			return nil
		}
		if _, remembered := m.saved[o.Key]; !remembered {
			m.saved[o.Key] = have
		}
		m.setSysctl(o.Key, o.Value)
	case plan.ReturnSysctl:
		old, remembered := m.saved[o.Key]
		if have, ok := m.sysctls[o.Key]; remembered && ok && have == o.Value {
			m.setSysctl(o.Key, old)
		}
		delete(m.saved, o.Key)
	}
	return nil
}

// applyHalf does what a process that is killed in the middle of the operation has done.
func (m *Machine) applyHalf(op plan.Op) {
	switch o := op.(type) {
	case plan.CreateBridge:
		_ = m.createBridge(o, false) // it has no alias yet
	case plan.CreatePair:
		_ = m.createPair(o, false)
	case plan.JoinBridge: // moved, and not isolated yet
		if b, l := m.link(o.Bridge), m.link(o.Link); b != nil && l != nil {
			l.Master = b.Index
		}
	case plan.BorrowSysctl:
		if have, ok := m.sysctls[o.Key]; ok && m.saved[o.Key] == "" {
			m.saved[o.Key] = have
		}
	case plan.ReturnSysctl:
		old, remembered := m.saved[o.Key]
		if have, ok := m.sysctls[o.Key]; ok && remembered && have == o.Value {
			m.sysctls[o.Key] = old
		}
	case plan.BouncePort:
		if l := m.link(o.Interface); l != nil && l.Master != 0 {
			m.setUp(l, false)
		}
	case plan.AddPort:
		if b, l := m.link(o.Bridge), m.link(o.Interface); b != nil && l != nil && l.Master == 0 && l.Index == o.Index {
			l.Master = b.Index
		}
	case plan.StartServer:
		delete(m.servers, o.Spec.Network) // the old one is stopped first
	case plan.InstallChains:
		m.present = true
	}
}
