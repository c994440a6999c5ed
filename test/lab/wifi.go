package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// accessPoint makes the switch's ports of the laptop's cables those of an access point: from a station it takes frames with the station's
// own MAC as the source alone, and passes on to it what is for that MAC or for many. What it refuses is counted, and never learned from.
func (s *Site) accessPoint(ctx context.Context) error {
	for i, c := range s.Cables {
		reflect := ""
		if s.Options.ReflectMulticast {
			reflect = fmt.Sprintf("meta pkttype { broadcast, multicast } dup to %q", c.Port)
		}
		rules := fmt.Sprintf(`table netdev %[1]s {
	set refused { type ether_addr . ether_type; size 1024; flags dynamic; counter; }
	counter violations { }
	chain from {
		type filter hook ingress device %[2]q priority -300;
		ether saddr != %[3]s update @refused { ether saddr . ether type }
		ether saddr != %[3]s counter name violations drop
		%[4]s
	}
	chain to {
		type filter hook egress device %[2]q priority -300;
		meta pkttype != { broadcast, multicast } ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether daddr != %[3]s drop
	}
}
`, apTable(i), c.Port, c.MAC, reflect)
		if _, err := s.Router.RunInput(ctx, rules, "nft", "-f", "-"); err != nil {
			return fmt.Errorf("cannot make site %q an access point: %w", s.Name, err)
		}
	}
	return nil
}

func apTable(cable int) string { return fmt.Sprintf("ap%d", cable) }

// Violations counts the frames that the site's access point (SiteOptions.WiFi) has refused, since their source MAC was not the station's.
func (s *Site) Violations(ctx context.Context) (int, error) {
	refused, err := s.Refused(ctx)
	total := 0
	for _, n := range refused {
		total += n
	}
	return total, err
}

// Refused tells which frames those of Violations were, counted by source MAC and type, "02:00:00:00:00:77 ip6"; at most 1024 kinds, and
// under "others" what is beyond. Cable.Capture shows the frames themselves.
func (s *Site) Refused(ctx context.Context) (map[string]int, error) {
	if !s.Options.WiFi {
		return nil, fmt.Errorf("cannot count violations at site %q: it is no Wi-Fi", s.Name)
	}
	refused := map[string]int{}
	for i := range s.Cables {
		out, err := s.Router.Run(ctx, "nft", "-j", "list", "table", "netdev", apTable(i))
		if err == nil {
			err = parseRefused(out, refused)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot count violations at site %q: %w", s.Name, err)
		}
	}
	return refused, nil
}

func parseRefused(table string, refused map[string]int) error {
	var doc struct {
		Nftables []struct {
			Counter struct{ Packets int }
			Set     struct {
				Elem []struct {
					Elem struct {
						Val     struct{ Concat []string }
						Counter struct{ Packets int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(table), &doc); err != nil {
		return err
	}
	others := 0
	for _, item := range doc.Nftables {
		others += item.Counter.Packets
		for _, e := range item.Set.Elem {
			refused[strings.Join(e.Elem.Val.Concat, " ")] += e.Elem.Counter.Packets
			others -= e.Elem.Counter.Packets
		}
	}
	if others > 0 {
		refused["others"] += others
	}
	return nil
}
