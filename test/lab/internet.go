package lab

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

var (
	// InternetIPv4 and InternetIPv6 are the internet host's addresses, from documentation prefixes (RFC 5737, RFC 3849).
	InternetIPv4 = netip.MustParseAddr("198.51.100.10")
	InternetIPv6 = netip.MustParseAddr("2001:db8:ffff::10")
	// EchoIPv4 and EchoIPv6 are its echo servers, UDP and TCP. A UDP reply is the request and, behind it,
	// the sender as the server saw it: 16 bytes of address, IPv4 mapped, and 2 of port.
	EchoIPv4 = netip.AddrPortFrom(InternetIPv4, 7)
	EchoIPv6 = netip.AddrPortFrom(InternetIPv6, 7)
)

// Internet is the host beyond the sites' routers.
type Internet struct {
	*Host

	mu      sync.Mutex
	peers   map[netip.AddrPort]Peer
	closers []interface{ Close() error }
}

// Peer is one sender that the UDP echo server has seen.
type Peer struct {
	Addr        netip.AddrPort
	First, Last time.Time
	Packets     int
}

func (n *Internet) start(l *Lab) (err error) {
	if n.Host, err = l.newHost("internet"); err != nil {
		return err
	}
	n.peers = map[netip.AddrPort]Peer{}
	for _, echo := range []netip.AddrPort{EchoIPv4, EchoIPv6} {
		if err := n.addAddress("lo", netip.PrefixFrom(echo.Addr(), echo.Addr().BitLen())); err != nil {
			return err
		}
		udp, err := n.ListenUDP(echo)
		if err != nil {
			return fmt.Errorf("cannot start echo server: %w", err)
		}
		n.closers = append(n.closers, udp)
		go n.echoUDP(udp)
		tcp, err := n.ListenTCP(echo)
		if err != nil {
			return fmt.Errorf("cannot start echo server: %w", err)
		}
		n.closers = append(n.closers, tcp)
		go n.echoTCP(tcp)
	}
	return nil
}

// connect lays the line between a site's router and the internet host, and the routes of both.
func (n *Internet) connect(s *Site) error {
	name := "to-" + s.Name
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := n.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: wanName, PeerNamespace: netlink.NsFd(int(s.Router.net.Fd()))}); err != nil {
		return fmt.Errorf("cannot connect site %q: %w", s.Name, err)
	}
	if err := n.setUp(name); err != nil {
		return err
	}
	if err := s.Router.Sysctl("net.ipv6.conf."+wanName+".disable_ipv6", "0"); err != nil {
		return err
	}
	if err := s.Router.setUp(wanName); err != nil {
		return err
	}
	i := byte(s.index)
	for _, family := range []struct {
		here, there   netip.Addr
		bits          int
		lan, default_ netip.Prefix
	}{
		{netip.AddrFrom4([4]byte{203, 0, 113, 4*i + 1}), netip.AddrFrom4([4]byte{203, 0, 113, 4*i + 2}), 30, s.Options.IPv4, netip.MustParsePrefix("0.0.0.0/0")},
		{netip.MustParseAddr(fmt.Sprintf("2001:db8:ffff:%x::1", s.index+1)), netip.MustParseAddr(fmt.Sprintf("2001:db8:ffff:%x::2", s.index+1)), 64, s.Options.IPv6, netip.MustParsePrefix("::/0")},
	} {
		if !family.lan.IsValid() {
			continue
		}
		if err := n.addAddress(name, netip.PrefixFrom(family.here, family.bits)); err != nil {
			return err
		}
		if err := s.Router.addAddress(wanName, netip.PrefixFrom(family.there, family.bits)); err != nil {
			return err
		}
		if err := n.addRoute(family.lan, family.there); err != nil {
			return err
		}
		if err := s.Router.addRoute(family.default_, family.here); err != nil {
			return err
		}
	}
	return nil
}

// Peers lists the senders that the UDP echo server has seen since the start.
func (n *Internet) Peers() []Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Peer
	for _, p := range n.peers {
		out = append(out, p)
	}
	return out
}

func (n *Internet) echoUDP(conn *net.UDPConn) {
	buf := make([]byte, 64<<10)
	for {
		size, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed with the lab
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		now := time.Now()
		n.mu.Lock()
		p, seen := n.peers[from]
		if !seen {
			p = Peer{Addr: from, First: now}
		}
		p.Last, p.Packets = now, p.Packets+1
		n.peers[from] = p
		n.mu.Unlock()
		// A reply that cannot be sent is a lost packet, which is what the prober measures.
		_, _ = conn.WriteToUDPAddrPort(appendPeer(buf[:size:size], from), from)
	}
}

func (n *Internet) echoTCP(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return // closed with the lab
		}
		n.mu.Lock()
		n.closers = append(n.closers, conn)
		n.mu.Unlock()
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

func (n *Internet) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.closers {
		_ = c.Close() // TCP connections may have ended before
	}
}
