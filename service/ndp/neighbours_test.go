package ndp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"gangway/service/ndp/message"
)

func address(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:a::%x", i+1)) }

func TestGuestsCannotFillTheTable(t *testing.T) {
	t.Parallel()
	n := newNeighbours()
	now := time.Unix(1000, 0)
	for mac := range 40 {
		for i := range 100 {
			n.learn(address(mac*100+i), message.MAC{2, 0, 0, 0, 0, byte(mac)}, 1, true, now)
		}
	}
	if len(n.list) != maxNeighbours {
		t.Errorf("%d addresses", len(n.list))
	}
	for mac, count := range n.counts {
		if count != maxAddresses {
			t.Errorf("%d addresses of %s", count, mac)
		}
	}
	// An hour later, there is room.
	now = now.Add(unseen)
	n.learn(address(9999), message.MAC{2, 0, 0, 0, 0, 99}, 1, true, now)
	if len(n.list) != 1 || len(n.counts) != 1 {
		t.Errorf("%d addresses of %d", len(n.list), len(n.counts))
	}
}

func TestAnAddressIsWhoseWhoHasIt(t *testing.T) {
	t.Parallel()
	first, second := message.MAC{2, 0, 0, 0, 0, 1}, message.MAC{2, 0, 0, 0, 0, 2}
	n := newNeighbours()
	now := time.Unix(1000, 0)
	n.learn(address(0), first, 1, false, now)
	n.learn(address(0), second, 2, false, now) // it only asks, and will be told
	if n.list[address(0)].mac != first {
		t.Error("who asked last has it")
	}
	n.learn(address(0), second, 2, true, now)
	if n.list[address(0)].mac != second || n.counts[first] != 0 || n.counts[second] != 1 {
		t.Errorf("%+v", n)
	}
	for _, no := range []string{"::", "::1", "ff02::1"} {
		n.learn(netip.MustParseAddr(no), first, 1, true, now)
	}
	n.learn(netip.MustParseAddr("fe80::1"), first, 1, true, now)
	n.learn(netip.MustParseAddr(prefixB[:len(prefixB)-3]+"1"), first, 1, true, now)
	on := n.on(prefixes(prefixA), now)
	if len(on) != 2 || on[0] != (place{netip.MustParseAddr("fe80::1"), first}) || on[1] != (place{address(0), second}) {
		t.Errorf("on the link: %v", on)
	}
	n.leave(2, now)
	if on := n.on(prefixes(prefixA, prefixB), now); len(on) != 2 {
		t.Errorf("after one left: %v", on)
	}
	if on := n.on(prefixes(prefixA, prefixB), now.Add(unseen)); len(on) != 0 || len(n.counts) != 0 {
		t.Errorf("after an hour: %v", on)
	}
}
