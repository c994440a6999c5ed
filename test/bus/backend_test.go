package bus

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"gangway/service/vnet"
)

// backend is a dbus.Backend that holds state. As a real one may, it lets a command return
// before subscribers have heard of the change.
type backend struct {
	mu       sync.Mutex
	snapshot *vnet.Snapshot
	commands []string // what was carried out
	// before, if set, is called at the beginning of each command, without the lock.
	before func(ctx context.Context, command string) error

	more    *sync.Cond
	queue   []change
	closed  bool
	done    chan struct{}
	deliver func(*vnet.Snapshot, []vnet.Event)
}

type change struct {
	snapshot *vnet.Snapshot
	events   []vnet.Event
}

func newBackend() *backend {
	b := &backend{done: make(chan struct{}), snapshot: &vnet.Snapshot{State: vnet.Online, Primary: "wlan0",
		Uplinks: []vnet.UplinkState{uplink("eth0"), uplink("wlan0")}, Networks: []vnet.NetworkState{network("default")}}}
	b.more = sync.NewCond(&b.mu)
	return b
}

func network(name string) vnet.NetworkState {
	return vnet.NetworkState{Name: name, Settings: vnet.DefaultSettings(name), State: vnet.Active, Bridge: "gway0", Uplink: "wlan0",
		Subnet: netip.MustParsePrefix("192.168.231.0/24"), Address: netip.MustParsePrefix("192.168.231.1/24"),
		IPv4State: "nat", IPv6State: "off", IPv6Reason: "not yet", Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}
}

func uplink(ifname string) vnet.UplinkState {
	return vnet.UplinkState{Uplink: vnet.Uplink{Interface: ifname, Kind: vnet.WiFi, Connection: "home", Metered: "no", Connectivity: "full",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/24")}}, Sharing: "auto", IPv6Method: "proxy"}
}

func (b *backend) Snapshot() *vnet.Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.snapshot
}

func (b *backend) Subscribe(f func(*vnet.Snapshot, []vnet.Event)) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliver = f
	b.queue = []change{{b.snapshot, nil}}
	go func() {
		defer close(b.done)
		for {
			b.mu.Lock()
			for len(b.queue) == 0 && !b.closed {
				b.more.Wait()
			}
			if b.closed {
				b.mu.Unlock()
				return
			}
			next := b.queue[0]
			b.queue = b.queue[1:]
			b.mu.Unlock()
			f(next.snapshot, next.events)
		}
	}()
	return b.close
}

func (b *backend) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.more.Signal()
}

// change makes a new snapshot of a copy that edit has changed.
func (b *backend) change(edit func(s *vnet.Snapshot), events ...vnet.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := *b.snapshot
	next.Networks, next.Uplinks = slices.Clone(next.Networks), slices.Clone(next.Uplinks)
	edit(&next)
	b.snapshot = &next
	b.queue = append(b.queue, change{&next, events})
	b.more.Signal()
}

// command runs a command that edits a network; edit's network is nil when there is none.
func (b *backend) command(ctx context.Context, what string, edit func(s *vnet.Snapshot) error) error {
	b.mu.Lock()
	before := b.before
	b.mu.Unlock()
	if before != nil {
		if err := before(ctx, what); err != nil {
			return err
		}
	}
	var failure error
	b.change(func(s *vnet.Snapshot) {
		was := *s
		if failure = edit(s); failure != nil {
			*s = was
		}
	})
	if failure == nil {
		b.mu.Lock()
		b.commands = append(b.commands, what)
		b.mu.Unlock()
	}
	return failure
}

func (b *backend) carriedOut() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.commands)
}

func (b *backend) setBefore(f func(context.Context, string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before = f
}

// edit finds the network in the snapshot.
func edit(s *vnet.Snapshot, name string, f func(n *vnet.NetworkState) error) error {
	for i := range s.Networks {
		if s.Networks[i].Name == name {
			return f(&s.Networks[i])
		}
	}
	return vnet.Errorf(vnet.NoSuchNetwork, "there is no network %q", name)
}

func (b *backend) CreateNetwork(ctx context.Context, name string, values map[string]any) error {
	return b.command(ctx, "create "+name, func(s *vnet.Snapshot) error {
		if _, ok := s.Network(name); ok {
			return vnet.Errorf(vnet.NetworkExists, "network %q exists", name)
		}
		if err := vnet.ValidateNetworkName(name); err != nil {
			return err
		}
		n := network(name)
		var err error
		if n.Settings, err = n.Settings.Merge(values); err != nil {
			return err
		}
		s.Networks = append(s.Networks, n)
		slices.SortFunc(s.Networks, func(x, y vnet.NetworkState) int { return strings.Compare(x.Name, y.Name) })
		return nil
	})
}

func (b *backend) UpdateNetwork(ctx context.Context, name string, values map[string]any) error {
	return b.command(ctx, "update "+name, func(s *vnet.Snapshot) error {
		return edit(s, name, func(n *vnet.NetworkState) (err error) {
			n.Settings, err = n.Settings.Merge(values)
			return err
		})
	})
}

func (b *backend) DeleteNetwork(ctx context.Context, name string) error {
	return b.command(ctx, "delete "+name, func(s *vnet.Snapshot) error {
		s.Networks = slices.DeleteFunc(s.Networks, func(n vnet.NetworkState) bool { return n.Name == name })
		return nil
	})
}

func (b *backend) setState(ctx context.Context, verb, name string, state vnet.NetworkStatus) error {
	return b.command(ctx, verb+" "+name, func(s *vnet.Snapshot) error {
		return edit(s, name, func(n *vnet.NetworkState) error { n.State = state; return nil })
	})
}

func (b *backend) StartNetwork(ctx context.Context, name string) error {
	return b.setState(ctx, "start", name, vnet.Active)
}

func (b *backend) StopNetwork(ctx context.Context, name string) error {
	return b.setState(ctx, "stop", name, vnet.Inactive)
}

func (b *backend) Attach(ctx context.Context, name, ifname string, options map[string]any, uid uint32) error {
	return b.command(ctx, "attach "+ifname, func(s *vnet.Snapshot) error {
		return edit(s, name, func(n *vnet.NetworkState) error {
			n.Ports = append(slices.Clone(n.Ports), vnet.Port{Interface: ifname, Kind: "attached", Owner: uid})
			return nil
		})
	})
}

func (b *backend) SetSharing(ctx context.Context, ifname, mode string) error {
	return b.command(ctx, "share "+ifname+" "+mode, func(*vnet.Snapshot) error { return nil })
}

func (b *backend) Detach(ctx context.Context, name, ifname string) error {
	return b.command(ctx, "detach "+ifname, func(s *vnet.Snapshot) error {
		return edit(s, name, func(n *vnet.NetworkState) error {
			n.Ports = slices.DeleteFunc(slices.Clone(n.Ports), func(p vnet.Port) bool { return p.Interface == ifname })
			return nil
		})
	})
}

func (b *backend) Ports(ctx context.Context, name string) ([]vnet.Port, error) {
	b.mu.Lock()
	before := b.before
	b.mu.Unlock()
	if before != nil {
		if err := before(ctx, "ports "+name); err != nil {
			return nil, err
		}
	}
	n, ok := b.Snapshot().Network(name)
	if !ok {
		return nil, vnet.Errorf(vnet.NoSuchNetwork, "there is no network %q", name)
	}
	return n.Ports, nil
}
