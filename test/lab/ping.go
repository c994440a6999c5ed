package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// pings tells the probes of this process apart: the identifier of their echo requests (RFC 4443 4.1).
var pings atomic.Uint32

// ProbePing sends ICMPv6 echo requests to an address, by default every 20 ms; the kernel chooses the source of each anew. A link-local
// address needs its zone: see Scoped.
func (h *Host) ProbePing(ctx context.Context, to netip.Addr, o ProbeOptions) (*Probe, error) {
	var conn *net.IPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenIP("ip6:ipv6-icmp", &net.IPAddr{IP: net.IPv6unspecified})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot ping %q from %q: %w", to, h.Name, err)
	}
	p := h.newProbe(netip.AddrPortFrom(to, 0), o.complete(20*time.Millisecond))
	id := uint16(pings.Add(1))
	p.waiting.Go(func() { p.receivePings(conn, id) })
	p.start(ctx, func(seq int) error {
		// The kernel fills in the checksum (RFC 3542 3.1); the number goes on in the data, where it has room.
		b := binary.BigEndian.AppendUint16([]byte{EchoRequest6, 0, 0, 0}, id)
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(b, uint16(seq)), uint64(seq))
		_, err := conn.WriteToIP(b, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
		return err
	}, func() {
		_ = conn.SetReadDeadline(time.Now().Add(p.options.Timeout))
	})
	return p, nil
}

func (p *Probe) receivePings(conn *net.IPConn, id uint16) {
	defer conn.Close()
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFromIP(buf)
		at := time.Now()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return
		case err != nil: // an ICMP error for some packet
			continue
		}
		if b := buf[:n]; n == 16 && b[0] == EchoReply6 && binary.BigEndian.Uint16(b[4:]) == id {
			addr, _ := netip.AddrFromSlice(from.IP) // its length is right
			p.answered(binary.BigEndian.Uint64(b[8:]), at, netip.AddrPortFrom(addr, 0), Answer{})
		}
	}
}

// Scoped gives a link-local address the zone of an interface, by number: names would be looked up in the caller's network, not the host's.
func (h *Host) Scoped(address netip.Addr, ifname string) (netip.Addr, error) {
	link, err := h.nl.LinkByName(ifname)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot find interface %q on %q: %w", ifname, h.Name, err)
	}
	return address.WithZone(strconv.Itoa(link.Attrs().Index)), nil
}

// Ping sends echo requests until one is answered.
func (h *Host) Ping(ctx context.Context, to netip.Addr) error {
	p, err := h.ProbePing(ctx, to, ProbeOptions{})
	if err != nil {
		return err
	}
	_, err = p.WaitSuccess(ctx, time.Time{})
	p.cancel()
	return err
}
