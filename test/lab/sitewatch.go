package lab

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
)

// DNSQuery is a question that a site's DNS server was asked.
type DNSQuery struct {
	Type string // "A", "TXT", ...
	Name string
	From netip.Addr
}

var queryLine = regexp.MustCompile(`(?m) query\[(\S+)\] (\S+) from (\S+)$`)

// Queries lists the questions that the site's DNS server was asked by others than its router, in order.
func (s *Site) Queries() ([]DNSQuery, error) {
	log, err := s.lab.Log(s.Router.Name)
	if err != nil {
		return nil, err
	}
	var out []DNSQuery
	for _, m := range queryLine.FindAllStringSubmatch(log, -1) {
		from, err := netip.ParseAddr(m[3])
		if err != nil {
			return nil, fmt.Errorf("cannot read query log of site %q: %w", s.Name, err)
		}
		if from != s.RouterIPv4 && from != s.RouterIPv6 {
			out = append(out, DNSQuery{Type: m[1], Name: m[2], From: from})
		}
	}
	return out, nil
}

// WaitUplink waits until the laptop has usable addresses of the site, of each family that the site has,
// and returns them; an invalid Addr stands for a family that it hasn't.
func (s *Site) WaitUplink(ctx context.Context) (v4, v6 netip.Addr, err error) {
	if s.Options.IPv4.IsValid() {
		if v4, err = s.lab.Laptop.WaitAddress(ctx, s.Interface, s.Options.IPv4); err != nil {
			return v4, v6, err
		}
	}
	if s.Options.IPv6.IsValid() {
		v6, err = s.lab.Laptop.WaitAddress(ctx, s.Interface, s.Options.IPv6)
	}
	return v4, v6, err
}
