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
// On request alone it changes something: [Reader.Share] makes an Ethernet interface a bridge, by two
// profiles of NetworkManager's, and [Reader.Unshare] takes that back.
//
//	share.go, unshare.go ──> share_origin.go (what is in force) ──> share_profile.go (pure) ──> NetworkManager
//	                         share_host.go, share_wait.go: is the host back on line?
//
// It is not responsible for choosing an uplink for a network (plan), for noticing
// changes of the kernel's state (link), or for what guests do on a bridge.
package uplink
