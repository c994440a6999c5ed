package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// warmUp is the time in which a connection gathers speed.
const warmUp = 100 * time.Millisecond

// Throughput sends by TCP from one host to an address of another for that long, after a warm-up of 100 ms that does not count, and
// returns what arrived, in bits a second of payload.
func Throughput(ctx context.Context, from, to *Host, address netip.Addr, length time.Duration) (float64, error) {
	rate, err := throughput(ctx, from, to, address, length)
	if err != nil {
		return 0, fmt.Errorf("cannot measure from %q to %q at %q: %w", from.Name, to.Name, address, err)
	}
	return rate, nil
}

func throughput(ctx context.Context, from, to *Host, address netip.Addr, length time.Duration) (float64, error) {
	listener, err := to.ListenTCP(netip.AddrPortFrom(address, 0))
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() }) // closing twice is harmless
	defer stop()
	type result struct {
		rate float64
		err  error
	}
	measured := make(chan result, 1)
	go func() {
		rate, err := drain(listener, length)
		measured <- result{rate, err}
	}()
	conn, err := from.DialTCP(ctx, netip.AddrPortFrom(address, uint16(listener.Addr().(*net.TCPAddr).Port)))
	if err != nil {
		return 0, errors.Join(err, listener.Close(), (<-measured).err)
	}
	defer conn.Close()
	stopConn := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stopConn()
	data := make([]byte, 256<<10)
	for {
		if _, err := conn.Write(data); err != nil {
			break // the sink has had enough, or says why not
		}
	}
	r := <-measured
	return r.rate, errors.Join(r.err, context.Cause(ctx))
}

// drain takes one connection, reads for that long and closes it.
func drain(listener *net.TCPListener, length time.Duration) (float64, error) {
	conn, err := listener.AcceptTCP()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	warm := time.Now().Add(warmUp)
	if err := conn.SetReadDeadline(warm.Add(length + 30*time.Second)); err != nil {
		return 0, err
	}
	var begin time.Time
	total, buf := 0, make([]byte, 1<<20)
	for {
		n, err := conn.Read(buf)
		now := time.Now()
		switch {
		case err != nil:
			return 0, err
		case begin.IsZero() && now.After(warm):
			begin = now // what came with this read came before
		case !begin.IsZero():
			if total += n; now.Sub(begin) >= length {
				return float64(8*total) / now.Sub(begin).Seconds(), nil
			}
		}
	}
}
