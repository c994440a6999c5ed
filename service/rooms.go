package service

import (
	"context"

	"gangway/service/plan"
	"gangway/service/store"
	"gangway/service/vnet"
)

// Room carries out operations. The outcomes are in the order of ops; one operation's
// failure doesn't keep the others from being tried.
type Room interface {
	Apply(ctx context.Context, ops []plan.Op) []plan.Outcome
}

// Watcher pokes when what it watches may have changed, until ctx ends. poke never blocks.
type Watcher interface {
	Watch(ctx context.Context, poke func(reason string)) error
}

// Kernel is the link room.
type Kernel interface {
	Room
	Watcher
	// Observe dumps links, addresses, routes, rules and sysctls (those of keys, too).
	Observe(ctx context.Context, keys []string) (vnet.Kernel, error)
	// LearnedMACs returns, by port index, the MAC address last learned behind each port of
	// the bridge with the index.
	LearnedMACs(ctx context.Context, bridge int) (map[int]string, error)
}

// Firewall is the firewall room.
type Firewall interface {
	Room
	Watcher
	Observe(ctx context.Context) (vnet.Firewall, error)
}

// Servers is the dnsmasq room.
type Servers interface {
	Room
	Watcher
	Observe(ctx context.Context) ([]vnet.Server, map[string][]vnet.Lease, error)
}

// NDP is the neighbour discovery room.
type NDP interface {
	Room
	Watcher
	// Observe listens on exactly these uplinks from now on, takes note of bridges and ports, and returns
	// what was heard and what guests were taught.
	Observe(ctx context.Context, k *vnet.Kernel, uplinks []vnet.Uplink) (vnet.NDP, error)
}

// Gate is the watchdog that closes IPv6-only links whose uplink has no carrier, and outlives
// the process.
type Gate interface {
	Room
	Watcher
	// Observe tells whether it runs.
	Observe(ctx context.Context) (bool, error)
}

// Uplinks reads where the host is connected.
type Uplinks interface {
	Watcher
	Read(ctx context.Context, k *vnet.Kernel) (vnet.Uplinks, error)
	// Again holds the last reading against a newer dump.
	Again(k *vnet.Kernel) vnet.Uplinks
	// Share makes the interface a bridge that guests can be bridged to, Unshare undoes that.
	// They return when the host is on line again, as it was before if they fail.
	Share(ctx context.Context, u vnet.Uplink) error
	Unshare(ctx context.Context, u vnet.Uplink) error
}

// Store keeps definitions and memory.
type Store interface {
	Room
	Definitions() ([]store.Definition, error)
	Save(name string, settings vnet.Settings) error
	Delete(name string) error
	Memory() store.Memory
	ForgetSubnet(name string) error
	// SetNeverShared records whether guests are to be kept off the links of the NetworkManager
	// connection with the UUID.
	SetNeverShared(uuid string, never bool) error
	Runtime() store.Runtime
	SetRuntime(store.Runtime) error
	Seed() string
}

// Rooms are all that a Service works on.
type Rooms struct {
	Kernel   Kernel
	Firewall Firewall
	Servers  Servers
	Uplinks  Uplinks
	NDP      NDP
	Gate     Gate
	Store    Store
}
