package lab

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// EchoPort is where echo servers listen, UDP and TCP.
const EchoPort = 7

// EchoServer answers each UDP datagram and each byte of TCP; what is in a reply is said at EchoIPv4.
type EchoServer struct {
	mu      sync.Mutex
	peers   map[netip.AddrPort]Peer
	closers []interface{ Close() error }
	closed  bool
}

// Peer is one sender that the UDP echo server has seen.
type Peer struct {
	Addr        netip.AddrPort
	First, Last time.Time
	Packets     int
}

func newEchoServer() *EchoServer { return &EchoServer{peers: map[netip.AddrPort]Peer{}} }

// serve listens on an address of the host, :: being all.
func (s *EchoServer) serve(h *Host, local netip.AddrPort) error {
	udp, err := h.ListenUDP(local)
	if err != nil {
		return fmt.Errorf("cannot start echo server on %q: %w", h.Name, err)
	}
	s.closeLater(udp)
	if local.Addr() == netip.IPv6Unspecified() {
		// A reply must come from the address that was asked, of several.
		if err := onSocket(udp, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1) }); err != nil {
			return fmt.Errorf("cannot start echo server on %q: %w", h.Name, err)
		}
	}
	go s.echoUDP(udp)
	tcp, err := h.ListenTCP(local)
	if err != nil {
		return fmt.Errorf("cannot start echo server on %q: %w", h.Name, err)
	}
	s.closeLater(tcp)
	go s.echoTCP(tcp)
	return nil
}

// onSocket calls f with the socket's descriptor.
func onSocket(conn syscall.Conn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// Peers lists the senders that the UDP echo server has seen since the start.
func (s *EchoServer) Peers() []Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Peer
	for _, p := range s.peers {
		out = append(out, p)
	}
	return out
}

func (s *EchoServer) echoUDP(conn *net.UDPConn) {
	buf, oob := make([]byte, 64<<10), make([]byte, 128)
	for {
		size, oobSize, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return // closed with the lab
		}
		seen := netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		now := time.Now()
		s.mu.Lock()
		p, known := s.peers[seen]
		if !known {
			p = Peer{Addr: seen, First: now}
		}
		p.Last, p.Packets = now, p.Packets+1
		s.peers[seen] = p
		s.mu.Unlock()
		// A reply that cannot be sent is a lost packet, which is what the prober measures.
		_, _, _ = conn.WriteMsgUDPAddrPort(appendPeer(buf[:size:size], seen), oob[:oobSize], from)
	}
}

func (s *EchoServer) echoTCP(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return // closed with the lab
		}
		s.closeLater(conn)
		go func() {
			defer conn.Close()
			buf := make([]byte, 64<<10)
			for {
				size, err := conn.Read(buf)
				if err != nil {
					return
				}
				if _, err := conn.Write(buf[:size]); err != nil {
					return
				}
			}
		}()
	}
}

func (s *EchoServer) closeLater(c interface{ Close() error }) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close() // came while the lab was being closed
	}
	s.closers = append(s.closers, c)
}

func (s *EchoServer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range s.closers {
		_ = c.Close() // TCP connections may have ended before
	}
}
