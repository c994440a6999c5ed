package lab

import (
	"bytes"
	"context"
	"net/netip"
	"testing"
	"time"
)

// TestNeighborMessages has one station send by hand what makes another's kernel answer.
func TestNeighborMessages(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := Start(t, Options{NoNetworkManager: true, NoPolkit: true, Sites: []SiteOptions{DefaultSites()[1]}})
	b := l.Site("b")
	one, err := b.AddStation(ctx, "one", StationOptions{MachineOptions: hasty})
	if err != nil {
		t.Fatal(err)
	}
	two, err := b.AddStation(ctx, "two", StationOptions{MachineOptions: hasty})
	if err != nil {
		t.Fatal(err)
	}
	there, _, err := two.WaitAddress6(ctx, b.Options.IPv6)
	if err != nil {
		t.Fatal(err)
	}
	answer, took, err := one.Resolve(ctx, there)
	if n, ok := answer.Neighbor(); err != nil || !ok || n.TargetLLA.String() != two.MAC.String() || n.Flags != 0x60 || took <= 0 || took > time.Minute {
		t.Errorf("resolved to %+v after %v, %v", n, took, err)
	}
	wire, err := two.Capture(ctx, GuestInterface)
	if err != nil {
		t.Fatal(err)
	}
	nonce := []byte("nonce!")
	if err := one.AskFree(there, nonce); err != nil {
		t.Fatal(err)
	}
	asked, err := wire.Wait(ctx, All(Incoming, IsDAD, About(there)))
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := asked.Neighbor(); !bytes.Equal(n.Nonce, nonce) || n.SourceLLA != nil || asked.Length != etherSize+ipv6HeaderSize+24+8 {
		t.Errorf("asked by %+v, %d bytes", n, asked.Length)
	}
	if _, err := wire.Wait(ctx, All(Outgoing, IsNA, About(there), DstIn(netip.PrefixFrom(AllNodes, 128)))); err != nil {
		t.Error("the owner doesn't defend its address:", err)
	}
	// What is taken over is known by those alone who know it already (RFC 4861 7.2.5).
	router := b.IPv6Router()
	if _, err := two.Run(ctx, "ip", "neigh", "replace", b.RouterIPv6.String(), "lladdr", router.MAC.String(), "dev", GuestInterface, "nud", "stale"); err != nil {
		t.Fatal(err)
	}
	if err := one.Advertise(LinkLocal(one.MAC), b.RouterIPv6); err != nil {
		t.Fatal(err)
	}
	if err := poll(ctx, func() (bool, error) {
		s, err := two.IPv6()
		return s.Neighbors[b.RouterIPv6].String() == one.MAC.String(), err
	}); err != nil {
		t.Errorf("nobody believes the advertisement: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if f, _, err := one.Resolve(short, b.Options.IPv6.Addr().Prev()); err == nil {
		t.Errorf("nobody's address is resolved to %+v", f)
	}
}
