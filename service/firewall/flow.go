package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h that the libraries lack, and the status
// bit of a flow whose source is translated (IPS_SRC_NAT).
const (
	ctaStatus     = 3
	ctaID         = 12
	ctaZone       = 18
	ctaStatusMask = 26
	statusSrcNAT  = 1 << 4
)

// tracked is a tracked connection, as far as it matters, and what names it to the kernel.
type tracked struct {
	family          uint8
	flow            vnet.Flow
	tuple, id, zone []byte
}

// flushFlows deletes the tracked connections that op means, of those families that its subnets are of, and returns how many it
// were. One that ended by itself between the dump and its deletion is counted, too.
//
// It is on the path of a switch, between the new route and the first packet that a NAT of
// before would send astray, so that it costs as little as can be: flows are judged on the
// bytes of the dump, and deleted in one go instead of with a question each.
func (f *Firewall) flushFlows(op plan.FlushFlows) (int, error) {
	var stale []tracked
	seen := map[string]bool{} // a dump may show one twice, when the table is rearranged meanwhile
	judge := func(t tracked) {
		if slices.ContainsFunc(op.Subnets, func(p netip.Prefix) bool { return p.Contains(t.flow.Source) }) &&
			!seen[string(t.id)] && op.Stale(t.flow) {
			seen[string(t.id)] = true
			stale = append(stale, t)
		}
	}
	var err error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		concerned := slices.ContainsFunc(op.Subnets, func(p netip.Prefix) bool { return p.Addr().Is4() == (family == unix.AF_INET) })
		if concerned && err == nil {
			err = f.netlink.flows(family, op.TranslatedOnly, judge)
		}
	}
	if err == nil {
		err = f.netlink.deleteFlows(stale)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot flush stale flows: %w", err)
	}
	return len(stale), nil
}

// dumpAttempts is how often a dump that was disturbed is made.
const dumpAttempts = 3

// flows shows each tracked connection of the family to f; with translatedOnly the kernel (5.15 and
// later) leaves out those whose source isn't translated.
func (c *conn) flows(family uint8, translatedOnly bool, f func(tracked)) error {
	var filter []*nl.RtAttr
	if translatedOnly {
		filter = append(filter, nl.NewRtAttr(ctaStatus, binary.BigEndian.AppendUint32(nil, statusSrcNAT)),
			nl.NewRtAttr(ctaStatusMask, binary.BigEndian.AppendUint32(nil, statusSrcNAT)))
	}
	var list [][]byte
	var err error
	for range dumpAttempts {
		list, err = c.ask(family, unix.NFNL_SUBSYS_CTNETLINK, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, filter...)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return err
	}
	for _, m := range list {
		if t, ok := parseFlow(m); ok {
			t.family = family
			f(t)
		}
	}
	return nil
}

// parseFlow reads the attributes of a connection; false if it is malformed.
func parseFlow(b []byte) (tracked, bool) {
	var t tracked
	var reply vnet.Flow
	for kind, value := range attributes(b) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			t.tuple, t.flow = value, parseTuple(value)
		case nl.CTA_TUPLE_REPLY:
			reply = parseTuple(value)
		case ctaID:
			t.id = value
		case ctaZone:
			t.zone = value
		}
	}
	t.flow.Translated = reply.Destination
	return t, t.flow.Source.IsValid() && t.flow.Destination.IsValid() && reply.Destination.IsValid() && t.id != nil
}

func parseTuple(b []byte) vnet.Flow {
	var f vnet.Flow
	for kind, value := range attributes(b) {
		switch kind {
		case nl.CTA_TUPLE_IP:
			for kind, value := range attributes(value) {
				switch kind {
				case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
					f.Source, _ = netip.AddrFromSlice(value)
				case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
					f.Destination, _ = netip.AddrFromSlice(value)
				}
			}
		case nl.CTA_TUPLE_PROTO:
			for kind, value := range attributes(value) {
				if kind == nl.CTA_PROTO_NUM && len(value) == 1 {
					f.Protocol = value[0]
				}
			}
		}
	}
	return f
}

// deleteBatch is how many deletions one message to the kernel has: some 100 bytes each.
const deleteBatch = 500

// deletionSequence is the first deletion's sequence number, far from those that the netlink
// library counts from 1 on the same socket.
const deletionSequence = 1 << 31

// deleteFlows deletes connections; those that are gone already are passed over.
func (c *conn) deleteFlows(list []tracked) error {
	for batch := range slices.Chunk(list, deleteBatch) {
		if err := c.deleteSome(batch); err != nil {
			return err
		}
	}
	return nil
}

// deleteSome sends the deletions at once and waits for the last one's acknowledgement. The
// kernel carries them out in order, so that the answers to the others, if any, came before.
func (c *conn) deleteSome(batch []tracked) error {
	socket := c.sockets[unix.NETLINK_NETFILTER].Socket
	var b []byte
	for i, t := range batch {
		flags := uint16(unix.NLM_F_REQUEST)
		if i == len(batch)-1 {
			flags |= unix.NLM_F_ACK
		}
		b = appendDeletion(b, t, flags, deletionSequence+uint32(i))
	}
	if err := unix.Sendto(socket.GetFd(), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 1<<16)
	var failure error
	for {
		n, _, err := unix.Recvfrom(socket.GetFd(), answer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		last, err := acknowledged(answer[:n], deletionSequence+uint32(len(batch)-1))
		if failure == nil {
			failure = err
		}
		if last { // to the end, or the rest would be taken for another question's answers
			return failure
		}
	}
}

// acknowledged reads answers to deletions: whether the last one's is among them, and the first
// error other than that a connection is gone.
func acknowledged(b []byte, last uint32) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr+4 {
		length := binary.NativeEndian.Uint32(b)
		if length < unix.SizeofNlMsghdr+4 || int64(length) > int64(len(b)) {
			break
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])))
			if errno != 0 && errno != unix.ENOENT && err == nil {
				err = errno
			}
			done = done || binary.NativeEndian.Uint32(b[8:]) == last
		}
		b = b[min(len(b), int(length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return done, err
}

// appendDeletion appends an IPCTNL_MSG_CT_DELETE. The id sees to it that a connection which
// took the place of the one that was judged is left alone.
func appendDeletion(b []byte, t tracked, flags uint16, sequence uint32) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_DELETE)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, t.family, nl.NFNETLINK_V0, 0, 0)
	b = appendAttribute(b, nl.CTA_TUPLE_ORIG|unix.NLA_F_NESTED, t.tuple)
	b = appendAttribute(b, ctaID, t.id)
	if t.zone != nil {
		b = appendAttribute(b, ctaZone, t.zone)
	}
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%unix.NLA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}
