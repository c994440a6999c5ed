package dnsmasq

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// change changes a server's record, in memory and on disk.
func (r *Room) change(s *server, do func(*record)) error {
	r.mu.Lock()
	do(&s.record)
	rec := s.record
	r.mu.Unlock()
	return r.writeRecord(rec)
}

// setUpstreams tells the network's server where to forward to; it forgets what the ones
// before have answered. With none, it refuses at once what isn't local.
func (r *Room) setUpstreams(ctx context.Context, names *owners, network string, upstreams []vnet.Upstream) error {
	s := r.find(network)
	if s == nil {
		return fmt.Errorf("cannot set DNS upstreams of %q: it has no server", network)
	}
	for _, u := range upstreams {
		if !u.Address.IsValid() || u.Interface != "" && !plain(u.Interface) ||
			slices.ContainsFunc(u.Domains, func(d string) bool { return !plain(d) || strings.Contains(d, "/") }) {
			return fmt.Errorf("cannot set DNS upstreams of %q: %q is malformed", network, fmt.Sprint(u))
		}
	}
	logSize(r.files(network).log)
	// Whoever is killed in between leaves behind that it isn't known what the server was told.
	if err := r.change(s, func(rec *record) { rec.KnownUpstreams = false }); err != nil {
		return err
	}
	args := serverArguments(upstreams)
	r.forgetServers(ctx, network)
	err := r.call(ctx, busName(network), network, "SetServersEx", args)
	if absent(err) {
		// The bus was restarted, and dnsmasq may not come to it as the user that it has become.
		if s, err = r.restart(ctx, names, s); err == nil {
			err = r.call(ctx, busName(network), network, "SetServersEx", args)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot set DNS upstreams of %q: %w", network, err)
	}
	return r.change(s, func(rec *record) {
		rec.Upstreams, rec.KnownUpstreams = slices.Clone(upstreams), true
	})
}

// restart replaces a server by one with the same files.
func (r *Room) restart(ctx context.Context, names *owners, s *server) (*server, error) {
	r.log.Warn("dnsmasq is not on the bus, starting it anew", "network", s.Network, "pid", s.PID)
	if err := s.end(); err != nil {
		return nil, err
	}
	rec := s.record
	rec.KnownUpstreams = false
	if err := r.launch(ctx, names, rec, netip.Addr{}); err != nil {
		return nil, err
	}
	if s = r.server(rec.Network); s == nil {
		return nil, errors.New("it ended at once")
	}
	return s, nil
}

// setHosts hands the network's server new reservations. Those that are gone are forgotten
// with their names, even where a guest has a lease by such a name.
func (r *Room) setHosts(ctx context.Context, spec plan.ServerSpec) error {
	s := r.find(spec.Network)
	if s == nil {
		return fmt.Errorf("cannot set reservations of %q: it has no server", spec.Network)
	}
	dhcpHosts, hostNames, err := renderHosts(spec)
	if err != nil {
		return err
	}
	f := r.files(spec.Network)
	before, err := os.ReadFile(f.dhcpHosts)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot set reservations of %q: %w", spec.Network, err)
	}
	offset := logSize(f.log)
	if err := errors.Join(writeFile(f.dhcpHosts, []byte(dhcpHosts)), writeFile(f.names, []byte(hostNames))); err != nil {
		return err
	}
	// The same as SIGHUP, but its answer comes when all is read.
	if err := r.call(ctx, busName(spec.Network), spec.Network, "ClearCache"); err != nil {
		return fmt.Errorf("cannot set reservations of %q: %w", spec.Network, err)
	}
	if line := complaint(f.log, offset, f.dhcpHosts, f.names); line != "" {
		return fmt.Errorf("cannot set reservations of %q: %s", spec.Network, line)
	}
	if err := r.dropNames(ctx, spec, string(before)); err != nil {
		return err
	}
	return r.change(s, func(rec *record) { rec.HostsDigest = spec.HostsDigest() })
}

// dropNames takes the names that reservations gave away from the leases that have
// them still: dnsmasq keeps a lease's name until the guest tells another. The lease
// itself is put back at once. before is the old dhcp-hostsfile.
func (r *Room) dropNames(ctx context.Context, spec plan.ServerSpec, before string) error {
	stale := reservedNames(before)
	for _, h := range spec.Hosts {
		if stale[h.MAC] == h.Hostname {
			delete(stale, h.MAC)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	leases, err := readLeases(ctx, r.files(spec.Network).leases)
	if err != nil {
		return fmt.Errorf("cannot take names of %q back: %w", spec.Network, err)
	}
	name, now := busName(spec.Network), r.clock()
	for _, l := range leases {
		if l.Hostname == "" || stale[l.MAC] != l.Hostname {
			continue
		}
		left := ^uint32(0) // for ever
		if !l.Expires.IsZero() {
			left = uint32(max(l.Expires.Sub(now)/time.Second, 1))
		}
		err := r.call(ctx, name, spec.Network, "DeleteDhcpLease", l.Address.String())
		if err == nil {
			err = r.call(ctx, name, spec.Network, "AddDhcpLease", l.Address.String(), l.MAC, []byte{}, l.clientID,
				left, uint32(0), false)
		}
		if err != nil {
			return fmt.Errorf("cannot take name %q of %q back: %w", l.Hostname, spec.Network, err)
		}
	}
	return nil
}

// reservedNames returns the host names in a dhcp-hostsfile of ours, by MAC address.
func reservedNames(dhcpHosts string) map[string]string {
	names := map[string]string{}
	for line := range strings.Lines(dhcpHosts) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		last := fields[len(fields)-1]
		if _, err := netip.ParseAddr(last); err == nil || len(fields) < 2 {
			continue
		}
		name, _, _ := strings.Cut(last, ".")
		names[fields[0]] = name
	}
	return names
}
