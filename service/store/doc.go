// Package store keeps what must outlive the process, in files: the networks' definitions
// (CONFIGDIR/networks/NAME.toml, written by people and by us), what must outlive a boot
// (STATEDIR/memory.json) and what must not (RUNTIMEDIR/runtime.json).
//
// Every write is atomic: after a crash or on a full disk there is the old file or the new
// one, whole. A file that can't be used costs what is in it, never the daemon's start.
//
// It is not responsible for what the settings mean together (two networks with one bridge,
// clashing subnets), nor for borrowed sysctls (package link) and leases (package dnsmasq).
package store
