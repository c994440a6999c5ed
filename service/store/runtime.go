package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"gangway/service/vnet"
)

// Runtime is what outlives the process but not the boot.
type Runtime struct {
	// Ports are the interfaces that were attached, by network.
	Ports map[string][]vnet.PortRef `json:"ports"`
	// Started has the networks that were started (true) or stopped (false) by hand, against
	// their autostart or not.
	Started map[string]bool `json:"started"`
}

func (r Runtime) clone() Runtime {
	c := Runtime{Ports: map[string][]vnet.PortRef{}, Started: map[string]bool{}}
	for name, ports := range r.Ports {
		if len(ports) > 0 {
			c.Ports[name] = slices.Clone(ports)
		}
	}
	maps.Copy(c.Started, r.Started)
	return c
}

func (r Runtime) validate() error {
	for name, ports := range r.Ports {
		if err := vnet.ValidateNetworkName(name); err != nil {
			return err
		}
		for _, port := range ports {
			if err := vnet.ValidateInterfaceName("interface", port.Interface); err != nil {
				return err
			}
		}
	}
	for name := range r.Started {
		if err := vnet.ValidateNetworkName(name); err != nil {
			return err
		}
	}
	return nil
}

// runtimeFile is Runtime with the boot that it is of: interface indices of another boot,
// should RuntimeDir outlive one, would name other interfaces.
type runtimeFile struct {
	Boot string `json:"boot"`
	Runtime
}

// Runtime returns a copy of the runtime state; its maps are never nil.
func (s *Store) Runtime() Runtime {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runtime.clone()
}

// SetRuntime replaces the runtime state; nothing is written if it is the same.
func (s *Store) SetRuntime(r Runtime) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := r.clone()
	if reflect.DeepEqual(next, s.runtime.clone()) {
		return nil
	}
	err := next.validate()
	var data []byte
	if err == nil {
		data, err = json.MarshalIndent(runtimeFile{bootID(), next}, "", "  ")
	}
	if err == nil {
		err = writeFile(s.runtimePath(), append(data, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot write runtime state %q: %w", s.runtimePath(), err)
	}
	s.runtime = next
	return nil
}

func (s *Store) runtimePath() string { return filepath.Join(s.options.RuntimeDir, runtimeName) }

func (s *Store) loadRuntime() {
	s.loadState(s.runtimePath(), func(data []byte) error {
		var f runtimeFile
		if err := json.Unmarshal(data, &f); err != nil {
			return err
		}
		if err := f.Runtime.validate(); err != nil {
			return err
		}
		if f.Boot == bootID() {
			s.runtime = f.Runtime
		}
		return nil
	})
}

// bootID identifies this boot of the kernel (random(4)), "" where /proc isn't there.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
