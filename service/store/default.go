package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"gangway/service/vnet"
)

// DefaultNetwork is the name of the network that is there from the first start on.
const DefaultNetwork = "default"

// bridgePrefix and a number make the interface name of a bridge.
const bridgePrefix = "gway"

// EnsureDefault defines the default network on the very first start: as the template
// DataDir/default.toml says if there is one, else with the default settings. Its bridge is
// gway0, or the next that no other definition names. A marker in StateDir says that it was
// done: a default network that a person deleted doesn't come back.
func (s *Store) EnsureDefault() error {
	marker := filepath.Join(s.options.StateDir, markerName)
	if _, err := os.Lstat(marker); err == nil {
		return nil
	}
	// A definition that is there already was made by a person, or by us in a start that
	// got no further.
	if _, err := os.Lstat(s.path(DefaultNetwork)); errors.Is(err, fs.ErrNotExist) {
		if err := s.defineDefault(); err != nil {
			return err
		}
	} else if err != nil {
		return fmt.Errorf("cannot define network %q: %w", DefaultNetwork, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := writeFile(marker, nil, 0o644); err != nil {
		return fmt.Errorf("cannot write marker %q: %w", marker, err)
	}
	return nil
}

func (s *Store) defineDefault() error {
	settings := vnet.DefaultSettings(DefaultNetwork)
	if s.options.DataDir != "" {
		var err error
		settings, err = load(filepath.Join(s.options.DataDir, DefaultNetwork+extension), DefaultNetwork)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot define network %q: %w", DefaultNetwork, err)
		}
	}
	if settings.Bridge == "" {
		definitions, err := s.Definitions()
		if err != nil {
			return fmt.Errorf("cannot define network %q: %w", DefaultNetwork, err)
		}
		settings.Bridge = freeBridge(definitions)
	}
	return s.Save(DefaultNetwork, settings)
}

func freeBridge(definitions []Definition) string {
	taken := map[string]bool{}
	for _, d := range definitions {
		taken[d.Settings.Bridge] = true
	}
	n := 0
	for taken[bridgePrefix+strconv.Itoa(n)] {
		n++
	}
	return bridgePrefix + strconv.Itoa(n)
}
