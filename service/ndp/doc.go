// Package ndp is the neighbour discovery room: it listens to the routers of uplinks, remembers,
// across crashes and boots, which of them the guests of a network were told of, and makes guests forget
// those of a link that they are no longer on (RFC 4861, RFC 4862, RFC 9096).
//
//	uplink's routers ──RA──> cache ──> vnet.Advertised      (what plan decides by)
//	guest ports      <─RA──  finals, announcements          (each port alone, never towards an uplink)
//	guest ports      ──RS──> answers, NS and NA ──> where which guest's address is
//
// All frames go by packet sockets: nothing depends on whether the kernel speaks IPv6 on an interface,
// and nothing is sent by a bridge, which would flood it to the uplink, too.
//
// It is not responsible for the IPv6-only link itself (package link), for what may pass it (package
// firewall), for what a frame looks like (package message), nor for deciding anything.
package ndp
