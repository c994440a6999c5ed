package dbus

import (
	"context"

	"gangway/policy"
	"gangway/service/vnet"
)

// Backend does what the methods ask for. Its methods may be called concurrently. A command
// returns after its change is in force and Snapshot shows it, or with an error and nothing changed.
type Backend interface {
	// Snapshot returns the present state. It never returns nil, nor a snapshot that is
	// not passed to subscribers sooner or later.
	Snapshot() *vnet.Snapshot
	// Subscribe calls f once at registration with the current snapshot, then after each
	// change, in order, none left out, from one goroutine. f returns at once.
	Subscribe(f func(s *vnet.Snapshot, events []vnet.Event)) (cancel func())

	CreateNetwork(ctx context.Context, name string, values map[string]any) error
	UpdateNetwork(ctx context.Context, name string, values map[string]any) error
	DeleteNetwork(ctx context.Context, name string) error
	StartNetwork(ctx context.Context, name string) error
	StopNetwork(ctx context.Context, name string) error
	// Attach makes ifname a port on behalf of the user uid.
	Attach(ctx context.Context, network, ifname string, options map[string]any, uid uint32) error
	Detach(ctx context.Context, network, ifname string) error
	// Ports returns the network's ports with fresh counters.
	Ports(ctx context.Context, network string) ([]vnet.Port, error)
	// SetSharing sets an uplink's mode of sharing: auto, bridge or never.
	SetSharing(ctx context.Context, ifname, mode string) error
}

// Authority says whether a caller may do something; *policy.Checker is one. The uid is the
// caller's. It may take minutes.
type Authority interface {
	Check(ctx context.Context, r policy.Request) (uid uint32, err error)
}
