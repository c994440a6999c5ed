// Package ndp is the neighbour discovery room: it listens to the routers of uplinks, remembers,
// across crashes and boots, which routers the guests of a network were told of, and makes guests forget
// those of a link that they are no longer on (RFC 4861, RFC 4862, RFC 9096). Where the network's bridge is its
// guests' router, it speaks for that, and stands in for guests on the uplink's link (RFC 4389).
//
//	uplink's routers ──RA──> cache ──> vnet.Advertised      (what plan decides by)
//	guest ports      <─RA──  finals, announcements          (each port alone, never towards an uplink)
//	guest ports      ──RS──> answers, NS and NA ──> where which guest's address is
//
// and for a network that is served by its bridge (plan.Serve):
//
//	cache ──> composition ──RA──> guest ports     one router's word, of what all say and what is over
//	guest ──DAD──> claim ──DAD──> uplink          an NA within a second goes back, else it is learned
//	uplink ──NS──> question ──NS──> guest ports   the answer goes out when the kernel answers for it
//	learned ──> vnet.Neighbours                   (of which plan makes routes and proxied neighbours)
//	guest <──NS── probe                           who doesn't answer is forgotten
//
// All frames go by packet sockets: nothing depends on whether the kernel speaks IPv6 on an interface,
// and nothing is sent by a bridge, which would flood it to the uplink, too.
//
// It is not responsible for the IPv6-only link itself, for routes and proxied neighbours (package link), for what
// may pass (package firewall), for what a frame looks like (package message), nor for deciding anything.
package ndp
