package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// advertiser sends a router's RA from the lab's own process: to all nodes, now and at the RA's longest interval, and upon each
// solicitation.
type advertiser struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (r *Router) newAdvertiser() (*advertiser, error) {
	var conn *net.IPConn
	err := r.Do(func() (err error) {
		// It receives what the router's kernel has joined: all routers, as it forwards.
		if conn, err = net.ListenIP("ip6:ipv6-icmp", &net.IPAddr{IP: net.IPv6unspecified}); err != nil {
			return err
		}
		return onSocket(conn, func(fd int) error { return unix.BindToDevice(fd, r.Interface) })
	})
	if err != nil {
		if conn != nil {
			err = errors.Join(err, conn.Close())
		}
		return nil, err
	}
	if err := r.sendRA(r.ra); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &advertiser{cancel: cancel, done: make(chan struct{})}
	r.onClose(a.stop)
	solicited := make(chan struct{}, 1)
	ra := r.ra
	go r.hearSolicitations(conn, solicited)
	go func() {
		defer close(a.done)
		defer conn.Close()
		_, interval := ra.intervals()
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-solicited:
			case <-ctx.Done():
				return
			}
			_ = r.sendRA(ra) // lost while the interface is down, as with any router
		}
	}()
	return a, nil
}

func (r *Router) hearSolicitations(conn *net.IPConn, solicited chan<- struct{}) {
	buf := make([]byte, 1500)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return // closed
		}
		if n > 0 && buf[0] == RouterSolicitation {
			select {
			case solicited <- struct{}{}:
			default:
			}
		}
	}
}

func (a *advertiser) stop() {
	a.cancel()
	<-a.done
}

// sendRA sends one advertisement to all nodes.
func (r *Router) sendRA(ra RA) error {
	frame, err := RAFrame(ra, r.MAC, r.LinkLocal)
	if err != nil {
		return err
	}
	return r.Send(r.Interface, frame)
}

// RAFrame builds an advertisement to all nodes, whoever is to send it. Without a SourceLLA it has the option with the source MAC.
func RAFrame(ra RA, mac net.HardwareAddr, src netip.Addr) ([]byte, error) {
	if ra.SourceLLA == nil {
		ra.SourceLLA = mac
	}
	b, err := ra.Marshal()
	if err != nil {
		return nil, err
	}
	return Ethernet(MulticastMAC(AllNodes), mac, EtherIPv6, IPv6(src, AllNodes, protoICMPv6, 255, ICMPv6(src, AllNodes, b[0], b[1], b[4:]))), nil
}
