// Package service is the daemon's one loop: pokes and commands come in, each pass observes
// the machine afresh, plans, applies the plan and publishes a snapshot.
//
// It knows nothing of D-Bus, netlink or files: those are behind the interfaces in rooms.go.
package service
