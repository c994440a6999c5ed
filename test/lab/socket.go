package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// ListenUDP opens a UDP socket on the host.
func (h *Host) ListenUDP(local netip.AddrPort) (conn *net.UDPConn, err error) {
	err = h.Do(func() error {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
		return err
	})
	return conn, err
}

// DialUDP opens a connected UDP socket on the host. A zero local lets the kernel choose.
func (h *Host) DialUDP(local, remote netip.AddrPort) (conn *net.UDPConn, err error) {
	var laddr *net.UDPAddr
	if local.IsValid() {
		laddr = net.UDPAddrFromAddrPort(local)
	}
	err = h.Do(func() error {
		conn, err = net.DialUDP("udp", laddr, net.UDPAddrFromAddrPort(remote))
		return err
	})
	return conn, err
}

// ListenTCP opens a TCP listener on the host.
func (h *Host) ListenTCP(local netip.AddrPort) (l *net.TCPListener, err error) {
	err = h.Do(func() error {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(local))
		return err
	})
	return l, err
}

// DialTCP connects from the host.
func (h *Host) DialTCP(ctx context.Context, remote netip.AddrPort) (conn *net.TCPConn, err error) {
	err = h.Do(func() error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", remote.String())
		if err == nil {
			conn = c.(*net.TCPConn)
		}
		return err
	})
	return conn, err
}

// Resolver asks the given DNS server, port included, from the host.
func (h *Host) Resolver(server netip.AddrPort) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		err = h.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, server.String())
			return err
		})
		return conn, err
	}}
}

// Reach sends one echo after the other to an echo server until one comes back, and returns
// the source address by which the server saw the host.
func (h *Host) Reach(ctx context.Context, echo netip.AddrPort) (netip.AddrPort, error) {
	var seen netip.AddrPort
	err := poll(ctx, func() (bool, error) {
		conn, err := h.DialUDP(netip.AddrPort{}, echo)
		if err != nil {
			return false, err
		}
		defer conn.Close()
		reply, err := exchange(ctx, conn, encodeEcho(0), reachTimeout)
		if err == nil {
			_, seen, err = decodeEcho(reply)
		}
		return err == nil, err
	})
	if err != nil {
		return seen, fmt.Errorf("cannot reach %q from %q: %w", echo, h.Name, err)
	}
	return seen, nil
}
