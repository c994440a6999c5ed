// Package gate keeps IPv6-only links from hiding that an uplink is unplugged. A bridge has carrier
// while any of its ports has: our end in an uplink's bridge would keep NetworkManager on it when
// its cable goes. So the outer end is up only while a port that isn't ours has carrier.
//
// That must hold when the daemon is dead, too. Main is therefore a process of its own, a watchdog
// that outlives the daemon; Gate is the room that starts it, finds it and ends it. It
// belongs to the network namespace that it was started in.
//
//	cable unplugged ─> kernel: port without carrier ─> rtnetlink ─> look at all links ─> outer end down
//	                                                                                     └─> bridge without carrier
//
// The package is not responsible for when there is to be a watchdog, nor for making, joining
// and guarding the links.
package gate
