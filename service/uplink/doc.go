// Package uplink reads by which interfaces the host reaches the outside.
//
// NetworkManager says what an interface is for and which one is primary; the kernel says
// what is in force: addresses, carriers, default routes, and a full-tunnel VPN that
// NetworkManager knows nothing of. Where NetworkManager isn't running or doesn't
// answer, the kernel's word and resolv.conf alone have to do.
//
//	bus ──> read.go, decode.go ──> picture ─┐
//	profile.go (cached) ────────────────────┼─> convert.go ──> vnet.Uplinks
//	link room's dump ──> survey.go ─────────┘    primary.go, dns.go, reserved.go: pure
//	watch.go ──> poke
//
// It is not responsible for choosing an uplink for a network (plan), for noticing
// changes of the kernel's state (link), or for changing anything.
package uplink
