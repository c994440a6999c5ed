package link

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// LearnedMACs returns, for the index of each port of the bridge with that index, the MAC
// address behind the port that was heard last; ports behind which none was heard are absent.
// The bridge forgets an address after five minutes of silence.
func (k *Kernel) LearnedMACs(ctx context.Context, bridge int) (map[int]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.connect()
	if err != nil {
		return nil, err
	}
	type entry struct {
		mac string
		age uint32
	}
	heard := map[int]entry{}
	head := make(rawData, unix.SizeofNdMsg)
	head[0] = unix.AF_BRIDGE
	req := dumpRequest(unix.RTM_GETNEIGH, head, nl.NewRtAttr(unix.NDA_MASTER, nl.Uint32Attr(uint32(bridge))))
	err = c.dump(req, func() { clear(heard) }, func(_ uint16, b []byte) error {
		if len(b) < unix.SizeofNdMsg {
			return nil
		}
		port, state := int(native.Uint32(b[4:])), native.Uint16(b[8:])
		if state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 {
			return nil // local addresses and those that somebody configured
		}
		var e entry
		master := 0
		for a := range attributes(b[unix.SizeofNdMsg:]) {
			switch a.kind {
			case unix.NDA_LLADDR:
				e.mac = hardwareAddress(a.value)
			case unix.NDA_MASTER:
				master = int(a.u32())
			case unix.NDA_CACHEINFO: // struct nda_cacheinfo: confirmed, used, updated, in ticks ago
				if len(a.value) >= 12 {
					e.age = native.Uint32(a.value[8:])
				}
			}
		}
		if master != bridge || e.mac == "" {
			return nil
		}
		last, known := heard[port]
		if !known || e.age < last.age || e.age == last.age && e.mac < last.mac {
			heard[port] = e
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list what the bridge with index %d learned: %w", bridge, err)
	}
	macs := make(map[int]string, len(heard))
	for port, e := range heard {
		macs[port] = e.mac
	}
	return macs, nil
}
