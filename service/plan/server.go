package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"gangway/service/vnet"
)

// LeaseTime is how long a guest may use an address without asking again. A virtual machine
// behind a tap doesn't see its port bounced, and after a renumbering comes back only when it
// gives up asking the old server (T2, 7/8 of the time, RFC 2131 4.4.5): ten minutes keep
// that short, and cost two packets in five minutes.
const LeaseTime = 10 * time.Minute

// ServerSpec is what a network's dnsmasq has to serve.
type ServerSpec struct {
	Network, Bridge string
	// Address is the bridge's own, with the subnet's prefix length.
	Address netip.Prefix
	// First and Last bound the dynamic range; both zero when DHCP is off.
	First, Last netip.Addr
	// Router tells whether guests are told a default router (not when isolated).
	Router bool
	Domain string
	// MTU is announced to guests when it isn't 0.
	MTU       uint32
	LeaseTime time.Duration
	Hosts     []vnet.DHCPHost
}

// Digest identifies everything that takes a restart to change: all but Hosts.
func (s ServerSpec) Digest() string {
	s.Hosts = nil
	return digest(s)
}

// HostsDigest identifies the reservations.
func (s ServerSpec) HostsDigest() string { return digest(s.Hosts) }

func (s ServerSpec) String() string {
	text := fmt.Sprintf("%s on %s at %s", s.Network, s.Bridge, s.Address)
	if s.First.IsValid() {
		text += fmt.Sprintf(", leases %s to %s", s.First, s.Last)
	}
	return text
}

func digest(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only types that marshal are passed
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
