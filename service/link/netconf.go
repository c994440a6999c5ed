package link

import "golang.org/x/sys/unix"

// Attributes and indices of RTM_*NETCONF (linux/netconf.h).
const (
	netconfIfindex    = 1
	netconfForwarding = 2
	netconfRPFilter   = 3

	netconfAll     = -1
	netconfDefault = -2

	// sizeofNetconfmsg is struct netconfmsg's, a family, with the padding to the attributes.
	sizeofNetconfmsg = 4
)

// absent says that a netconf message doesn't tell the value.
const absent = -1

// netconf is what a RTM_NEWNETCONF says of one link.
type netconf struct {
	index                int
	forwarding, rpFilter int32
}

func parseNetconf(b []byte) (c netconf, ok bool) {
	if len(b) < sizeofNetconfmsg || b[0] != unix.AF_INET {
		return c, false
	}
	c = netconf{forwarding: absent, rpFilter: absent}
	for a := range attributes(b[sizeofNetconfmsg:]) {
		switch a.kind {
		case netconfIfindex:
			c.index = int(int32(a.u32()))
			ok = true
		case netconfForwarding:
			c.forwarding = int32(a.u32())
		case netconfRPFilter:
			c.rpFilter = int32(a.u32())
		}
	}
	return c, ok
}
