package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// Spoofed counts the packets that a site's router has dropped because their source is not of its LAN (BCP 38).
// A laptop's own sockets that stay bound to the other site's address count too; Sources tells who it was.
type Spoofed struct {
	IPv4, IPv6 uint64
	Sources    map[netip.Addr]uint64 // at most 1024
}

// filter sets up a router's ingress filter. Link-local and unspecified sources are legitimate on a LAN, and so is whatever prefix
// one of its routers advertises: they are all one operator's.
func (s *Site) filter(ctx context.Context, r *Host) error {
	v4, v6 := "0.0.0.0", "::, fe80::/10"
	if s.Options.IPv4.IsValid() {
		v4 += ", " + s.Options.IPv4.String()
	}
	for _, p := range s.advertised() {
		v6 += ", " + p.String()
	}
	rules := fmt.Sprintf(`table inet bcp38 {
	counter spoofed4 { }
	counter spoofed6 { }
	set lan6 { type ipv6_addr; flags interval; elements = { %[3]s }; }
	set sources4 { type ipv4_addr; size 1024; flags dynamic; counter; }
	set sources6 { type ipv6_addr; size 1024; flags dynamic; counter; }
	chain ingress {
		type filter hook prerouting priority -300;
		iifname %[1]q ip saddr != { %[2]s } counter name spoofed4 update @sources4 { ip saddr }
		iifname %[1]q ip saddr != { %[2]s } drop
		iifname %[1]q ip6 saddr != @lan6 counter name spoofed6 update @sources6 { ip6 saddr }
		iifname %[1]q ip6 saddr != @lan6 drop
	}
}
`, lanName, v4, v6)
	if _, err := r.RunInput(ctx, rules, "nft", "-f", "-"); err != nil {
		return fmt.Errorf("cannot set up ingress filter of site %q: %w", s.Name, err)
	}
	return nil
}

// admit lets a router take a further prefix for one of the LAN.
func (s *Site) admit(ctx context.Context, r *Host, p netip.Prefix) error {
	_, err := r.Run(ctx, "nft", "add", "element", "inet", "bcp38", "lan6", "{", p.String(), "}")
	return err
}

// Spoofed reads the counters of the router's ingress filter.
func (s *Site) Spoofed(ctx context.Context) (Spoofed, error) {
	out, err := s.Router.Run(ctx, "nft", "-j", "list", "ruleset")
	if err != nil {
		return Spoofed{}, err
	}
	return parseSpoofed(out)
}

func parseSpoofed(ruleset string) (Spoofed, error) {
	var doc struct {
		Nftables []struct {
			Counter struct {
				Name    string
				Packets uint64
			}
			Set struct {
				Name string
				Elem []json.RawMessage
			}
		}
	}
	sp := Spoofed{Sources: map[netip.Addr]uint64{}}
	if err := json.Unmarshal([]byte(ruleset), &doc); err != nil {
		return sp, fmt.Errorf("cannot read ingress filter: %w", err)
	}
	for _, item := range doc.Nftables {
		switch item.Counter.Name {
		case "spoofed4":
			sp.IPv4 = item.Counter.Packets
		case "spoofed6":
			sp.IPv6 = item.Counter.Packets
		}
		if !strings.HasPrefix(item.Set.Name, "sources") {
			continue
		}
		for _, raw := range item.Set.Elem {
			var e struct {
				Elem struct {
					Val     netip.Addr
					Counter struct{ Packets uint64 }
				}
			}
			if err := json.Unmarshal(raw, &e); err != nil {
				return sp, fmt.Errorf("cannot read ingress filter: %w", err)
			}
			sp.Sources[e.Elem.Val] = e.Elem.Counter.Packets
		}
	}
	return sp, nil
}
