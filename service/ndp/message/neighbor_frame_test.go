package message

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var equalAddresses = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// What is sent is what is received: each message that is valid is read as it was written.
func TestNeighborsAreReadAsTheyWereWritten(t *testing.T) {
	macs := rapid.SampledFrom([]MAC{routerMAC, guestMAC})
	addresses := rapid.SampledFrom([]netip.Addr{router, guest})
	rapid.Check(t, func(t *rapid.T) {
		s := NeighborSolicitation{From: addresses.Draw(t, "from"), Target: addresses.Draw(t, "target"), MAC: macs.Draw(t, "mac")}
		if s.To = s.Target; rapid.Bool().Draw(t, "multicast") {
			s.To = SolicitedNode(s.Target)
		}
		if rapid.Bool().Draw(t, "says") {
			s.LinkLayer = macs.Draw(t, "says")
		}
		if rapid.Bool().Draw(t, "nonce") {
			n := 8*rapid.IntRange(1, 3).Draw(t, "units") - 2
			s.Nonce = rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "nonce")
		}
		if rapid.Bool().Draw(t, "duplicate") {
			s.From, s.To, s.LinkLayer = netip.IPv6Unspecified(), SolicitedNode(s.Target), MAC{}
		}
		f, err := ParseFrame(s.Frame(Multicast(s.To)).Marshal())
		if err != nil || f.Destination != Multicast(s.To) || f.HopLimit != 255 {
			t.Fatalf("%+v, %v", f, err)
		}
		if got, err := ParseNeighborSolicitation(f); err != nil || !cmp.Equal(&s, got, equalAddresses) {
			t.Fatalf("%+v, %v, want %+v", got, err, s)
		}

		a := NeighborAdvertisement{From: addresses.Draw(t, "from"), To: AllNodes, Target: addresses.Draw(t, "target"), MAC: macs.Draw(t, "mac"),
			Router: rapid.Bool().Draw(t, "router"), Override: rapid.Bool().Draw(t, "override")}
		if rapid.Bool().Draw(t, "solicited") {
			a.To, a.Solicited = addresses.Draw(t, "to"), true
		}
		if rapid.Bool().Draw(t, "says") {
			a.LinkLayer = macs.Draw(t, "says")
		}
		if f, err = ParseFrame(a.Frame(guestMAC).Marshal()); err != nil || f.Destination != guestMAC {
			t.Fatalf("%+v, %v", f, err)
		}
		if got, err := ParseNeighborAdvertisement(f); err != nil || !cmp.Equal(&a, got, equalAddresses) {
			t.Fatalf("%+v, %v, want %+v", got, err, a)
		}
	})
}

func TestSolicit(t *testing.T) {
	f := Solicit(router, routerMAC, guest, MAC{})
	if s, err := ParseNeighborSolicitation(parsed(t, f.Marshal())); err != nil || s.To.String() != "ff02::1:ff00:2" || f.Destination.String() != "33:33:ff:00:00:02" ||
		s.From != router || s.Target != guest || s.LinkLayer != routerMAC || s.MAC != routerMAC {
		t.Errorf("%+v, %v", s, err)
	}
	f = Solicit(router, routerMAC, guest, guestMAC)
	if s, err := ParseNeighborSolicitation(parsed(t, f.Marshal())); err != nil || s.To != guest || f.Destination != guestMAC {
		t.Errorf("%+v, %v", s, err)
	}
	// RFC 4861 4.3: not from the unspecified address.
	odd := NeighborSolicitation{From: netip.IPv6Unspecified(), To: SolicitedNode(guest), Target: guest, LinkLayer: guestMAC, Nonce: []byte{1, 2}}
	if s, err := ParseNeighborSolicitation(parsed(t, odd.Frame(guestMAC).Marshal())); err != nil || len(s.Nonce) != 6 || s.Nonce[0] != 1 || s.Nonce[2] != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
