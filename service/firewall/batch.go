package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// batch is a transaction of nftables: the kernel carries out all of its messages or none.
type batch struct {
	conn        *conn
	first, last uint32 // sequence numbers
	bytes       []byte
	latest      int // where the latest message begins
	// needs says what the kernel may lack for a message, by sequence number.
	needs map[uint32]string
}

// newBatch begins a transaction that is refused with ERESTART unless the ruleset still is that
// generation; 0 for whatever it is.
func (c *conn) newBatch(generation uint32) *batch {
	b := &batch{conn: c}
	b.first = b.next()
	b.bytes = appendMessage(nil, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, b.first, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES,
		attribute{unix.NFNL_BATCH_GENID, binary.BigEndian.AppendUint32(nil, generation)})
	return b
}

func (b *batch) next() uint32 {
	return atomic.AddUint32(&b.conn.sockets[unix.NETLINK_NETFILTER].Seq, 1)
}

// add appends an NFT_MSG of a family.
func (b *batch) add(family uint8, message int, flags uint16, attributes ...attribute) {
	b.latest, b.last = len(b.bytes), b.next()
	b.bytes = appendMessage(b.bytes, unix.NFNL_SUBSYS_NFTABLES<<8|uint16(message), unix.NLM_F_REQUEST|flags, b.last, family, 0, attributes...)
}

// need notes what the kernel lacks if it doesn't know what is in the latest message; "" for nothing that
// it could lack.
func (b *batch) need(what string) {
	if what == "" {
		return
	}
	if b.needs == nil {
		b.needs = map[uint32]string{}
	}
	b.needs[b.last] = what
}

// commit carries out what was added, at least one message, and returns the first message's error
// that has one.
func (b *batch) commit() error {
	flags := b.bytes[b.latest+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	b.bytes = appendMessage(b.bytes, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, b.next(), unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	fd := b.conn.sockets[unix.NETLINK_NETFILTER].Socket.GetFd()
	if err := unix.Sendto(fd, b.bytes, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	failed, err := b.conn.batchAnswer(b.first, b.last)
	if what := b.needs[failed]; what != "" && lacksExpression(err) {
		return fmt.Errorf("the kernel lacks %s: %w", what, err)
	}
	return err
}

// batchAnswer reads the answers to a batch whose messages have the sequence numbers first to
// last, of which last asked for one, and returns the first error among them and which message's it is.
func (c *conn) batchAnswer(first, last uint32) (failed uint32, failure error) {
	fd := c.sockets[unix.NETLINK_NETFILTER].Socket.GetFd()
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		for header, payload := range messages(buffer[:n]) {
			if header.Type != unix.NLMSG_ERROR || header.Seq-first > last-first || len(payload) < 4 {
				continue // left over from a question before this one
			}
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(payload))); errno != 0 && failure == nil {
				failed, failure = header.Seq, errno
			}
			if header.Seq == first {
				// The batch as a whole was refused. Other answers may follow or not; the one
				// to a new question comes behind them.
				_, err := c.generation()
				return failed, errors.Join(failure, err)
			}
			if header.Seq == last {
				return failed, failure
			}
		}
	}
}

type attribute struct {
	kind  uint16
	value []byte
}

// nested is an attribute that consists of others.
func nested(kind uint16, attributes ...attribute) attribute {
	var b []byte
	for _, a := range attributes {
		b = appendAttribute(b, a.kind, a.value)
	}
	return attribute{kind | unix.NLA_F_NESTED, b}
}

// number is an attribute of nftables with an integer.
func number(kind uint16, value uint32) attribute {
	return attribute{kind, binary.BigEndian.AppendUint32(nil, value)}
}

// text is an attribute with a string.
func text(kind uint16, value string) attribute { return attribute{kind, nl.ZeroTerminated(value)} }

// appendMessage appends a message to netfilter; resource is nfgenmsg's res_id.
func appendMessage(b []byte, kind, flags uint16, sequence uint32, family uint8, resource uint16, attributes ...attribute) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, nl.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	for _, a := range attributes {
		b = appendAttribute(b, a.kind, a.value)
	}
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}
