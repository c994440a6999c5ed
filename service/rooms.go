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

// Uplinks reads where the host is connected.
type Uplinks interface {
	Watcher
	Read(ctx context.Context, k *vnet.Kernel) (vnet.Uplinks, error)
	// Again holds the last reading against a newer dump.
	Again(k *vnet.Kernel) vnet.Uplinks
}

// Store keeps definitions and memory.
type Store interface {
	Room
	Definitions() ([]store.Definition, error)
	Save(name string, settings vnet.Settings) error
	Delete(name string) error
	Memory() store.Memory
	ForgetSubnet(name string) error
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
	Store    Store
}
