package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// resubscribePause is the time between losing the subscription and asking for it again.
const resubscribePause = time.Second

// Watch pokes whenever somebody has changed the nftables ruleset since it was last looked
// at by Observe or Apply, so that what was broken is mended at once. It returns when ctx ends.
// Of the legacy backend's rules the kernel tells nothing; what happens to guards is heard of with either.
func (f *Firewall) Watch(ctx context.Context, poke func(reason string)) error {
	for {
		err := f.watch(ctx, poke)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, unix.ENOBUFS) {
			f.log.Warn("lost the firewall's notifications", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(resubscribePause):
			}
		}
	}
}

// watch subscribes and pokes until the subscription fails or ctx ends.
func (f *Firewall) watch(ctx context.Context, poke func(string)) error {
	s, err := subscribe(unix.NFNLGRP_NFTABLES)
	if err != nil {
		return err
	}
	defer s.Close()
	// Closing would race with a reader that holds the descriptor; a deadline wakes it.
	stop := context.AfterFunc(ctx, func() { s.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// What happened before the subscription told nobody.
	if f.changedSince() {
		poke("firewall rules changed")
	}
	buffer := make([]byte, 1<<16)
	for {
		// Read reports a multicast message from the kernel only: others need CAP_NET_ADMIN.
		n, err := s.Read(buffer)
		if err != nil {
			return fmt.Errorf("cannot read firewall's notifications: %w", err)
		}
		if generation, ok := newGeneration(buffer[:n]); ok && f.isNews(generation) {
			poke("firewall rules changed")
		}
	}
}

// changedSince tells whether the ruleset isn't the one that was last looked at.
func (f *Firewall) changedSince() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	generation, err := f.generation()
	return err != nil || !f.seen.valid || generation != f.seen.generation
}

// isNews tells whether a generation is later than the one that was last looked at. The
// lock makes it wait for an Apply that is at work, whose own changes are no news.
func (f *Firewall) isNews(generation uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.seen.valid || int32(generation-f.seen.generation) > 0 // it wraps around
}

// newGeneration finds the NFT_MSG_NEWGEN that ends each transaction's messages.
func newGeneration(b []byte) (uint32, bool) {
	const newGen = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
	for header, payload := range messages(b) {
		if header.Type == newGen && len(payload) >= nfgenLength {
			return generationOf(payload[nfgenLength:])
		}
	}
	return 0, false
}

// subscribe opens a socket that receives a multicast group of netfilter's.
func subscribe(group int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("cannot open netfilter socket: %w", err)
	}
	s := os.NewFile(uintptr(fd), "netfilter")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot bind netfilter socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot subscribe to netfilter's group %d: %w", group, err)
	}
	return s, nil
}
