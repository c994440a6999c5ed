package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Types of DNS records (RFC 1035 3.2.2, RFC 3596 2.1).
const (
	TypeA    uint16 = 1
	TypeTXT  uint16 = 16
	TypeAAAA uint16 = 28
)

// Answer is a DNS server's reply to one question.
type Answer struct {
	RCode int // 0 is success, 3 means no such name (RFC 1035 4.1.1)
	Addrs []netip.Addr
	Texts []string
}

var errDNS = errors.New("malformed DNS message")

// Query sends one question, once, from the host to a DNS server, and waits at most a second. It is for
// tests that must know which server answered what; Resolver behaves as programs do.
func (h *Host) Query(ctx context.Context, server netip.AddrPort, name string, qtype uint16) (Answer, error) {
	conn, err := h.DialUDP(netip.AddrPort{}, server)
	if err != nil {
		return Answer{}, fmt.Errorf("cannot ask %q from %q: %w", server, h.Name, err)
	}
	defer conn.Close()
	const id = 1 // the socket is new, and connected: no stranger's answer gets in
	reply, err := exchange(ctx, conn, encodeQuery(id, name, qtype), reachTimeout)
	if err != nil {
		return Answer{}, fmt.Errorf("cannot ask %q from %q: %w", server, h.Name, err)
	}
	return decodeAnswer(id, reply)
}

// encodeQuery renders a recursive question of class IN. The name's labels must be 1 to 63 bytes.
func encodeQuery(id uint16, name string, qtype uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	b = append(b, 0)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, qtype), 1)
}

// decodeAnswer reads a reply to the question of that id.
func decodeAnswer(id uint16, b []byte) (a Answer, err error) {
	if len(b) < 12 || binary.BigEndian.Uint16(b) != id || b[2]&0x80 == 0 {
		return a, errDNS
	}
	a.RCode = int(b[3] & 0xf)
	questions, answers := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	rest := b[12:]
	for range questions {
		if rest, err = skipName(rest); err != nil || len(rest) < 4 {
			return a, errDNS
		}
		rest = rest[4:]
	}
	for range answers {
		if rest, err = skipName(rest); err != nil || len(rest) < 10 {
			return a, errDNS
		}
		rtype, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[8:]))
		if rest = rest[10:]; len(rest) < size {
			return a, errDNS
		}
		data := rest[:size]
		rest = rest[size:]
		switch rtype {
		case TypeA, TypeAAAA:
			addr, ok := netip.AddrFromSlice(data)
			if !ok {
				return a, errDNS
			}
			a.Addrs = append(a.Addrs, addr)
		case TypeTXT:
			if size == 0 || int(data[0]) > size-1 {
				return a, errDNS
			}
			a.Texts = append(a.Texts, string(data[1:1+data[0]]))
		}
	}
	return a, nil
}

// skipName passes over a possibly compressed name (RFC 1035 4.1.4).
func skipName(b []byte) ([]byte, error) {
	for len(b) > 0 {
		switch n := int(b[0]); {
		case n == 0:
			return b[1:], nil
		case n >= 0xc0:
			if len(b) < 2 {
				return nil, errDNS
			}
			return b[2:], nil
		case n > 63 || len(b) <= n:
			return nil, errDNS
		default:
			b = b[1+n:]
		}
	}
	return nil, errDNS
}
