// Package message reads and writes the messages of IPv6 neighbour discovery (RFC 4861), as Ethernet
// frames: solicitations and advertisements of routers and neighbours.
//
// Whatever it returns as parsed is what a host would go by: all of RFC 4861's rules for validation
// were applied. Advertisements of routers are kept byte for byte, and edited in place on a copy, so
// that what we don't know of passes as it came.
//
// It is pure, and not responsible for sending, receiving, clocks or what is remembered of whom.
package message
