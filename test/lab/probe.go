package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ProbeOptions says how to measure.
type ProbeOptions struct {
	// Interval between two packets; by default 5 ms, and 20 ms for DNS.
	Interval time.Duration
	// Timeout after which a packet without an answer is lost; by default 1 s.
	Timeout time.Duration
	// Ports, for ProbeSockets, is the number of source ports that are used in turn, from 20000 on, so that
	// a NAT meets each of them again; at most 10000. 0 leaves the choice to the kernel.
	Ports int
}

func (o ProbeOptions) complete(interval time.Duration) ProbeOptions {
	if o.Interval <= 0 {
		o.Interval = interval
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	o.Ports = min(max(o.Ports, 0), 10000)
	return o
}

// Probe measures continuously whether a host reaches a server, until Finish.
type Probe struct {
	host    *Host
	server  netip.AddrPort
	options ProbeOptions
	cancel  context.CancelFunc
	sending sync.WaitGroup // the loop that sends
	waiting sync.WaitGroup // those who wait for answers

	mu      sync.Mutex
	samples []Sample
	changed chan struct{} // closed and replaced when a sample is answered
}

// ProbeFlow sends echoes over one connected UDP socket: one flow, whose source is fixed at the start.
func (h *Host) ProbeFlow(ctx context.Context, echo netip.AddrPort, o ProbeOptions) (*Probe, error) {
	conn, err := h.DialUDP(netip.AddrPort{}, echo)
	if err != nil {
		return nil, fmt.Errorf("cannot probe %q from %q: %w", echo, h.Name, err)
	}
	p := h.newProbe(echo, o.complete(5*time.Millisecond))
	p.waiting.Go(func() { p.receiveFlow(conn) })
	p.start(ctx, func(seq int) error {
		_, err := conn.Write(encodeEcho(uint64(seq)))
		return err
	}, func() {
		// The receiver goes on until the last packet's time is over.
		_ = conn.SetReadDeadline(time.Now().Add(p.options.Timeout))
	})
	return p, nil
}

// ProbeSockets sends each echo from a socket of its own, as a series of short connections does.
func (h *Host) ProbeSockets(ctx context.Context, echo netip.AddrPort, o ProbeOptions) (*Probe, error) {
	p := h.newProbe(echo, o.complete(5*time.Millisecond))
	next := 0
	p.start(ctx, func(seq int) error {
		var local *net.UDPAddr
		if p.options.Ports > 0 {
			local = &net.UDPAddr{Port: 20000 + next%p.options.Ports}
			next++
		}
		return p.shoot(seq, local, encodeEcho(uint64(seq)), func(b []byte) (netip.AddrPort, Answer, error) {
			got, seen, err := decodeEcho(b)
			if err == nil && got != uint64(seq) {
				err = errNotEcho // an old answer to a port that is used again
			}
			return seen, Answer{}, err
		})
	}, func() {})
	return p, nil
}

// ProbeDNS asks a DNS server for TXT and A of a name in turn, each question from a socket of its own. Any
// well-formed answer counts as reached; who gave it is in the samples.
func (h *Host) ProbeDNS(ctx context.Context, server netip.AddrPort, name string, o ProbeOptions) (*Probe, error) {
	p := h.newProbe(server, o.complete(20*time.Millisecond))
	p.start(ctx, func(seq int) error {
		qtype := []uint16{TypeTXT, TypeA}[seq%2]
		return p.shoot(seq, nil, encodeQuery(uint16(seq), name, qtype), func(b []byte) (netip.AddrPort, Answer, error) {
			a, err := decodeAnswer(uint16(seq), b)
			return netip.AddrPort{}, a, err
		})
	}, func() {})
	return p, nil
}

func (h *Host) newProbe(server netip.AddrPort, o ProbeOptions) *Probe {
	return &Probe{host: h, server: server, options: o, changed: make(chan struct{})}
}

// start runs the sending loop within the host's namespace; done is called after the last packet.
func (p *Probe) start(ctx context.Context, send func(seq int) error, done func()) {
	ctx, p.cancel = context.WithCancel(ctx)
	p.host.onClose(func() { p.Finish() })
	p.sending.Go(func() {
		defer done()
		err := p.host.Do(func() error {
			tick := time.NewTicker(p.options.Interval)
			defer tick.Stop()
			for seq := 0; ; seq++ {
				p.mu.Lock()
				p.samples = append(p.samples, Sample{Seq: seq, Sent: time.Now(), RTT: -1})
				p.mu.Unlock()
				if err := send(seq); err != nil {
					p.note(seq, err)
				}
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
			}
		})
		if err != nil {
			p.mu.Lock()
			p.samples = append(p.samples, Sample{Seq: len(p.samples), Sent: time.Now(), RTT: -1, Err: err})
			p.mu.Unlock()
		}
	})
}

// note records why a packet could not be sent, or was refused.
func (p *Probe) note(seq int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.samples[seq].Err = err
}

// answered records the answer to a packet, if it came in time and is the first.
func (p *Probe) answered(seq uint64, at time.Time, seen netip.AddrPort, a Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seq >= uint64(len(p.samples)) {
		return
	}
	s := &p.samples[seq]
	rtt := at.Sub(s.Sent)
	if s.RTT >= 0 || rtt > p.options.Timeout {
		return
	}
	s.RTT, s.Seen, s.Answer = rtt, seen, a
	close(p.changed)
	p.changed = make(chan struct{})
}

// shoot sends one packet from a new socket, which must be opened on the calling thread, and waits for its answer aside.
func (p *Probe) shoot(seq int, local *net.UDPAddr, msg []byte, decode func([]byte) (netip.AddrPort, Answer, error)) error {
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(p.server))
	if err != nil {
		return err
	}
	if _, err = conn.Write(msg); err != nil {
		return errors.Join(err, conn.Close())
	}
	p.waiting.Go(func() {
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(p.options.Timeout)); err != nil {
			p.note(seq, err)
			return
		}
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			at := time.Now()
			if err != nil {
				p.note(seq, err)
				return
			}
			if seen, answer, err := decode(buf[:n]); err == nil {
				p.answered(uint64(seq), at, seen, answer)
				return
			}
		}
	})
	return nil
}

func (p *Probe) receiveFlow(conn *net.UDPConn) {
	defer conn.Close()
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		at := time.Now()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, net.ErrClosed):
			return
		case err != nil: // an ICMP error for some packet; the flow goes on
			continue
		}
		if seq, seen, err := decodeEcho(buf[:n]); err == nil {
			p.answered(seq, at, seen, Answer{})
		}
	}
}

// WaitSuccess waits until a packet that was sent at or after the time has been answered.
func (p *Probe) WaitSuccess(ctx context.Context, after time.Time) (Sample, error) {
	for {
		p.mu.Lock()
		changed := p.changed
		s, ok := Result{Samples: p.samples}.FirstSuccess(after)
		p.mu.Unlock()
		if ok {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Sample{}, fmt.Errorf("cannot see %q reach %q: %w", p.host.Name, p.server, context.Cause(ctx))
		}
	}
}

// Finish stops sending, waits for what is on its way, at most the timeout, and returns what was measured.
func (p *Probe) Finish() Result {
	p.cancel()
	p.sending.Wait()
	p.waiting.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return Result{Samples: p.samples}
}
