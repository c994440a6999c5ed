package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"
)

// reachTimeout is how long one echo or query waits for its answer.
const reachTimeout = time.Second

// echoMagic begins an echo request: it and a sequence number of 8 bytes.
const echoMagic = "gwlb"

var errNotEcho = errors.New("not an echo reply of the lab's")

func encodeEcho(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(echoMagic), seq)
}

// appendPeer adds to a request what makes it a reply: the sender as the server saw it.
func appendPeer(request []byte, from netip.AddrPort) []byte {
	a := from.Addr().As16()
	return binary.BigEndian.AppendUint16(append(request, a[:]...), from.Port())
}

// decodeEcho reads an echo reply.
func decodeEcho(b []byte) (seq uint64, seen netip.AddrPort, err error) {
	if len(b) != 4+8+16+2 || string(b[:4]) != echoMagic {
		return 0, netip.AddrPort{}, errNotEcho
	}
	return binary.BigEndian.Uint64(b[4:]), netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[12:])).Unmap(), binary.BigEndian.Uint16(b[28:])), nil
}

// exchange sends one datagram and returns the first that comes back.
func exchange(ctx context.Context, conn net.Conn, msg []byte, timeout time.Duration) ([]byte, error) {
	deadline := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := conn.Write(msg); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	return buf[:n], err
}
