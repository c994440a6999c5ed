// Package link is the room of rtnetlink and of sysctls: it observes the links, addresses,
// IPv4 routes and rules and the settings that go with them, carries out the operations of
// plan.LinkRoom, and tells when any of it changes.
//
// It is not responsible for the packet filter, for IPv6 routing and neighbours, for
// NetworkManager's view of an interface, nor for deciding anything.
//
// Messages are built with the nl package of vishvananda/netlink and read here, without the
// detour by its types: a pass on a machine with 200 bridges must not cost more than what the
// kernel itself needs to dump them (see BenchmarkObserve).
package link
