package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// MaxUplinkPrefixes is how many prefixes of uplinks are remembered: the latest.
const MaxUplinkPrefixes = 256

// Memory is what outlives a boot.
type Memory struct {
	// Subnets are the subnets that networks chose by themselves, by network.
	Subnets map[string]netip.Prefix `json:"subnets"`
	// Prefixes are the IPv6 /64s of their own that networks use, by network.
	Prefixes map[string]netip.Prefix `json:"prefixes,omitempty"`
	// UplinkPrefixes are those that uplinks have used, in the order in which they were
	// first seen, 256 at most: an automatic subnet had better keep out of their way.
	UplinkPrefixes []netip.Prefix `json:"uplink-prefixes"`
	// NeverShared are the UUIDs of the NetworkManager connections on whose links no guest is
	// to appear, sorted.
	NeverShared []string `json:"never-shared,omitempty"`
}

func (m Memory) clone() Memory {
	m.Subnets = maps.Clone(m.Subnets)
	if m.Subnets == nil {
		m.Subnets = map[string]netip.Prefix{}
	}
	m.Prefixes = maps.Clone(m.Prefixes)
	if m.Prefixes == nil {
		m.Prefixes = map[string]netip.Prefix{}
	}
	m.UplinkPrefixes = slices.Clone(m.UplinkPrefixes)
	m.NeverShared = slices.Clone(m.NeverShared)
	return m
}

func (m Memory) validate() error {
	for _, chosen := range []map[string]netip.Prefix{m.Subnets, m.Prefixes} {
		for name, p := range chosen {
			if err := vnet.ValidateNetworkName(name); err != nil {
				return err
			}
			if err := validatePrefix(p); err != nil {
				return fmt.Errorf("subnet or prefix of network %q: %w", name, err)
			}
		}
	}
	for _, prefix := range m.UplinkPrefixes {
		if err := validatePrefix(prefix); err != nil {
			return fmt.Errorf("uplink prefix: %w", err)
		}
	}
	if !slices.IsSorted(m.NeverShared) || slices.Contains(m.NeverShared, "") {
		return fmt.Errorf("never-shared is not a sorted list of UUIDs")
	}
	return nil
}

func validatePrefix(p netip.Prefix) error {
	if !p.IsValid() || p != p.Masked() {
		return fmt.Errorf("%q is not a prefix without host bits", p)
	}
	return nil
}

// Memory returns a copy of what is remembered; Subnets and Prefixes are never nil.
func (s *Store) Memory() Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.memory.clone()
}

// Apply carries out the store's operations, RememberSubnet, RememberPrefix and RememberUplinkPrefix, with one
// write for all, none if nothing changes. The outcomes are as many as ops. When the write fails,
// nothing was remembered.
func (s *Store) Apply(ctx context.Context, ops []plan.Op) []plan.Outcome {
	outcomes := make([]plan.Outcome, len(ops))
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.memory.clone()
	var changing []int
	for i, op := range ops {
		if err := ctx.Err(); err != nil {
			outcomes[i].Err = fmt.Errorf("cannot %s: %w", op, err)
			continue
		}
		changed, err := next.apply(op)
		if err != nil {
			outcomes[i].Err = fmt.Errorf("cannot %s: %w", op, err)
		} else if changed {
			changing = append(changing, i)
			outcomes[i].Count = 1
		}
	}
	if len(changing) == 0 {
		return outcomes
	}
	if err := s.writeMemory(next); err != nil {
		for _, i := range changing {
			outcomes[i] = plan.Outcome{Err: fmt.Errorf("cannot %s: %w", ops[i], err)}
		}
	}
	return outcomes
}

func (m *Memory) apply(op plan.Op) (changed bool, err error) {
	switch op := op.(type) {
	case plan.RememberSubnet:
		return remember(m.Subnets, op.Network, op.Subnet)
	case plan.RememberPrefix:
		return remember(m.Prefixes, op.Network, op.Prefix)
	case plan.RememberUplinkPrefix:
		prefix := op.Prefix.Masked()
		if !prefix.IsValid() {
			return false, fmt.Errorf("%q is not a prefix", op.Prefix)
		}
		if slices.Contains(m.UplinkPrefixes, prefix) {
			return false, nil
		}
		m.UplinkPrefixes = append(m.UplinkPrefixes, prefix)
		if over := len(m.UplinkPrefixes) - MaxUplinkPrefixes; over > 0 {
			m.UplinkPrefixes = m.UplinkPrefixes[over:]
		}
		return true, nil
	}
	return false, fmt.Errorf("%T is not an operation of the store", op)
}

func remember(chosen map[string]netip.Prefix, network string, p netip.Prefix) (changed bool, err error) {
	if err := vnet.ValidateNetworkName(network); err != nil {
		return false, err
	}
	if err := validatePrefix(p); err != nil {
		return false, err
	}
	changed = chosen[network] != p
	chosen[network] = p
	return changed, nil
}

// ForgetSubnet forgets which subnet and which prefix the network used. Forgetting what isn't known is success.
func (s *Store) ForgetSubnet(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.memory.clone()
	delete(next.Subnets, name)
	delete(next.Prefixes, name)
	if len(next.Subnets) == len(s.memory.Subnets) && len(next.Prefixes) == len(s.memory.Prefixes) {
		return nil
	}
	if err := s.writeMemory(next); err != nil {
		return fmt.Errorf("cannot forget subnet of network %q: %w", name, err)
	}
	return nil
}

// SetNeverShared records whether guests are to be kept off the links of the NetworkManager connection
// with the UUID.
func (s *Store) SetNeverShared(uuid string, never bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, found := slices.BinarySearch(s.memory.NeverShared, uuid)
	if found == never {
		return nil
	}
	next := s.memory.clone()
	if never {
		next.NeverShared = slices.Insert(next.NeverShared, at, uuid)
	} else {
		next.NeverShared = slices.Delete(next.NeverShared, at, at+1)
	}
	if err := s.writeMemory(next); err != nil {
		return fmt.Errorf("cannot record the sharing of connection %q: %w", uuid, err)
	}
	return nil
}

func (s *Store) memoryPath() string { return filepath.Join(s.options.StateDir, memoryName) }

// writeMemory makes m the memory, on disk first; s.mu is held.
func (s *Store) writeMemory(m Memory) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(s.memoryPath(), append(data, '\n'), 0o644); err != nil {
		return err
	}
	s.memory = m
	return nil
}

func (s *Store) loadMemory() {
	s.loadState(s.memoryPath(), func(data []byte) error {
		var m Memory
		if err := json.Unmarshal(data, &m); err != nil {
			return err
		}
		if err := m.validate(); err != nil {
			return err
		}
		if over := len(m.UplinkPrefixes) - MaxUplinkPrefixes; over > 0 {
			m.UplinkPrefixes = m.UplinkPrefixes[over:]
		}
		s.memory = m
		return nil
	})
}
