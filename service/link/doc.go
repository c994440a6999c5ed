// Package link is the room of rtnetlink and of sysctls: it observes the links, addresses, routes
// and rules of both families, the neighbours that the kernel answers for in others' stead (proxies), and
// the settings that go with them, carries out the operations of plan.LinkRoom, and tells when any of it
// changes; but for proxies, of which the kernel announces nothing.
//
// It is not responsible for the packet filter, for who is to be answered for and who is behind a
// bridge (the neighbour discovery room learns that), for NetworkManager's view of an interface, nor
// for deciding anything.
//
// Messages are built with the nl package of vishvananda/netlink and read here, without the
// detour by its types: a pass on a machine with 200 bridges must not cost more than what the
// kernel itself needs to dump them (see BenchmarkObserve). Of IPv6's routes, which are three or more
// for each address, the kernel is asked for those alone that anybody looks at.
package link
