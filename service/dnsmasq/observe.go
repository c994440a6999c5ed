package dnsmasq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gangway/service/vnet"
)

// Observe returns the servers that run now, sorted by network, and the leases that haven't
// expired, by network, whether its server runs or not. Servers of a process before us
// are taken over; files of servers that are gone are removed.
//
// Upstreams and the digests are what a server was last told, kept in a record that is bound
// to the process: dnsmasq can't be asked for them. A server whose record is lost
// (searched for by the first Observe alone) has an empty Digest.
func (r *Room) Observe(ctx context.Context) ([]vnet.Server, map[string][]vnet.Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("cannot observe servers: %w", err)
	}
	if err := r.findServers(); err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	servers := make([]vnet.Server, 0, len(r.servers))
	for _, s := range r.servers {
		if s.running() {
			servers = append(servers, s.observed())
		}
	}
	r.mu.Unlock()
	slices.SortFunc(servers, func(a, b vnet.Server) int { return strings.Compare(a.Network, b.Network) })
	leases, err := r.observeLeases()
	return servers, leases, err
}

func (s *server) observed() vnet.Server {
	return vnet.Server{Network: s.Network, PID: s.PID, Digest: s.Digest, HostsDigest: s.HostsDigest,
		Upstreams: slices.Clone(s.Upstreams), KnownUpstreams: s.KnownUpstreams}
}

// findServers takes over what runs unknown to us and removes what the dead left.
func (r *Room) findServers() error {
	entries, err := os.ReadDir(r.runtime)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot look for servers: %w", err)
	}
	for _, e := range entries {
		if vnet.ValidateNetworkName(e.Name()) == nil && r.server(e.Name()) == nil {
			r.adoptRecorded(e.Name())
		}
	}
	if !r.scanned {
		if err := r.adoptUnrecorded(); err != nil {
			return err
		}
		r.scanned = true
	}
	if r.lookOnly {
		return nil
	}
	for _, e := range entries {
		if vnet.ValidateNetworkName(e.Name()) == nil && r.server(e.Name()) == nil {
			if err := r.files(e.Name()).removeFiles(); err != nil {
				return err
			}
		}
	}
	return nil
}

// adoptRecorded takes over the network's server if its record says that there is one.
func (r *Room) adoptRecorded(network string) *server {
	rec, err := readRecord(r.files(network).record)
	if err != nil || rec.Network != network || rec.Start == 0 {
		return nil
	}
	s := r.adopt(rec)
	if s != nil {
		r.log.Info("took over dnsmasq", "network", network, "pid", rec.PID)
		r.track(s)
	}
	return s
}

// adoptUnrecorded takes over servers whose record is lost or was never written: a process
// before us was killed right after a start, or somebody emptied the directory.
func (r *Room) adoptUnrecorded() error {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("cannot look for servers: %w", err)
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + p.Name() + "/cmdline")
		if err != nil {
			continue
		}
		_, option, _ := strings.Cut(strings.TrimSuffix(string(line), "\x00"), "\x00")
		config, ok := strings.CutPrefix(option, configOption+r.runtime+"/")
		network := filepath.Dir(config)
		if !ok || vnet.ValidateNetworkName(network) != nil || r.server(network) != nil {
			continue
		}
		if s := r.adopt(record{Network: network, PID: pid}); s != nil {
			r.log.Info("took over dnsmasq without a record", "network", network, "pid", pid)
			r.track(s)
		}
	}
	return nil
}

// find returns the network's running server, be it ours or not yet taken over.
func (r *Room) find(network string) *server {
	if s := r.server(network); s != nil {
		return s
	}
	return r.adoptRecorded(network)
}
