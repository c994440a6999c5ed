package firewall

import (
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// conn is a netlink socket to the kernel's netfilter, of the network namespace that it was
// opened in. It may be used by one goroutine at a time.
type conn struct{ sockets map[int]*nl.SocketHandle }

func openConn() (*conn, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("cannot open netfilter socket: %w", err)
	}
	// The kernel answers at once; this is against waiting for ever.
	timeout := unix.Timeval{Sec: 10}
	s.SetSendTimeout(&timeout)
	s.SetReceiveTimeout(&timeout)
	return &conn{map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: s}}}, nil
}

func (c *conn) close() {
	for _, s := range c.sockets {
		s.Close()
	}
}

// do sends a request to a subsystem and returns the answers' attributes, one element per message.
func (c *conn) do(subsystem, command, flags int, attributes ...*nl.RtAttr) ([][]byte, error) {
	return c.ask(unix.AF_INET, subsystem, command, flags, attributes...)
}

// ask is do for any family.
func (c *conn) ask(family uint8, subsystem, command, flags int, attributes ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(subsystem<<8|command, flags)
	req.Sockets = c.sockets
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	for _, a := range attributes {
		req.AddData(a)
	}
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, err
	}
	for i, m := range messages {
		messages[i] = m[min(len(m), nl.SizeofNfgenmsg):]
	}
	return messages, nil
}

// generation returns the number of the nftables ruleset; it is another one after each change.
func (c *conn) generation() (uint32, error) {
	messages, err := c.do(unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETGEN, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot read generation of nftables: %w", err)
	}
	for _, m := range messages {
		if id, ok := generationOf(m); ok {
			return id, nil
		}
	}
	return 0, fmt.Errorf("cannot read generation of nftables: no answer has it")
}

// generationOf finds the number in the attributes of an NFT_MSG_NEWGEN.
func generationOf(message []byte) (uint32, bool) {
	for kind, value := range attributes(message) {
		if kind == unix.NFTA_GEN_ID && len(value) == 4 {
			return binary.BigEndian.Uint32(value), true
		}
	}
	return 0, false
}

// attributes iterates over the netlink attributes in b: type without flags, and value.
// It ends where b is malformed.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofNlAttr || length > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK, b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min(len(b), (length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}

// nfgenLength is the size of struct nfgenmsg, which stands before the attributes.
const nfgenLength = nl.SizeofNfgenmsg

// messages iterates over the netlink messages in b: header and payload. It ends where b is malformed.
func messages(b []byte) iter.Seq2[unix.NlMsghdr, []byte] {
	return func(yield func(unix.NlMsghdr, []byte) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			header := unix.NlMsghdr{
				Len:  binary.NativeEndian.Uint32(b),
				Type: binary.NativeEndian.Uint16(b[4:]),
				Seq:  binary.NativeEndian.Uint32(b[8:]),
			}
			if header.Len < unix.SizeofNlMsghdr || int64(header.Len) > int64(len(b)) {
				return
			}
			if !yield(header, b[unix.SizeofNlMsghdr:header.Len]) {
				return
			}
			b = b[min(len(b), int(header.Len+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
}
