package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"gangway/service/vnet"
)

// Options says where the files are.
type Options struct {
	// ConfigDir (/etc/gangway) holds networks/NAME.toml. It is created by the first Save,
	// so that a read-only one does for reading.
	ConfigDir string
	// StateDir (/var/lib/gangway) outlives a boot, RuntimeDir (/run/gangway) doesn't. Both
	// are created.
	StateDir, RuntimeDir string
	// DataDir (/usr/share/gangway) may hold default.toml, the template of the default
	// network; "" for none.
	DataDir string
	// MachineID is the file with the machine's identity, "" for /etc/machine-id.
	MachineID string
	// Log is where files that can't be used are reported, nil for slog's default.
	Log *slog.Logger
}

// Store reads and writes the files. Its methods may be called from any goroutine; only one
// process at a time may use the directories.
type Store struct {
	options  Options
	networks string // the definitions' directory
	log      *slog.Logger
	seed     string

	mu       sync.Mutex
	memory   Memory
	runtime  Runtime
	reported map[string]bool // files whose names were complained about
}

// Definition is a network as it is defined.
type Definition struct {
	Name string
	// Settings have the defaults filled in; Bridge is "" where the file doesn't say.
	Settings vnet.Settings
	// Problem, a *FileError, says why the file can't be used; Settings are then the defaults.
	Problem error
}

const (
	extension    = ".toml"
	networksName = "networks"
	memoryName   = "memory.json"
	runtimeName  = "runtime.json"
	seedName     = "seed"
	markerName   = "default-defined"
)

// Open creates the directories for state, removes the temporary files that a process that
// was killed left behind, and reads memory and runtime state. A corrupt one is moved aside
// (.corrupt), reported in the log, and begun anew.
func Open(o Options) (*Store, error) {
	s := &Store{
		options:  o,
		networks: filepath.Join(o.ConfigDir, networksName),
		log:      o.Log,
		reported: map[string]bool{},
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	for _, dir := range []string{o.StateDir, o.RuntimeDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("cannot create directory %q: %w", dir, err)
		}
	}
	for _, dir := range []string{s.networks, o.StateDir, o.RuntimeDir} {
		s.removeTemporary(dir)
	}
	if err := s.loadSeed(); err != nil {
		return nil, err
	}
	s.loadMemory()
	s.loadRuntime()
	return s, nil
}

// Definitions reads all definitions afresh, sorted by name. A file that can't be used makes a
// Definition with a Problem; one whose name can't be a network's is reported in the log, once.
// Hidden files and those that don't end with .toml are not looked at.
func (s *Store) Definitions() ([]Definition, error) {
	entries, err := os.ReadDir(s.networks)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read directory %q: %w", s.networks, err)
	}
	var list []Definition
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), extension)
		if !ok || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := vnet.ValidateNetworkName(name); err != nil {
			s.report(filepath.Join(s.networks, e.Name()), err)
			continue
		}
		d := Definition{Name: name}
		d.Settings, d.Problem = load(s.path(name), name)
		// A file that was deleted meanwhile is no definition.
		if errors.Is(d.Problem, fs.ErrNotExist) && e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		list = append(list, d)
	}
	// os.ReadDir sorted the file names, where "a-b.toml" is before "a.toml".
	slices.SortFunc(list, func(a, b Definition) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Save writes the definition of a network, new or not. Settings that no network can have are
// an error that is a *vnet.Error; then, and when the file can't be written, the old file stays.
// Comments of the old file are lost; a symbolic link is replaced by a file.
func (s *Store) Save(name string, settings vnet.Settings) error {
	if err := vnet.ValidateNetworkName(name); err != nil {
		return fmt.Errorf("cannot save network %q: %w", name, err)
	}
	settings, err := vnet.DefaultSettings(name).Merge(settings.Values())
	if err != nil {
		return fmt.Errorf("cannot save network %q: %w", name, err)
	}
	text := render(name, settings)
	if err := reparse(name, text, settings); err != nil {
		return fmt.Errorf("cannot save network %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(s.networks, 0o755); err != nil {
		return fmt.Errorf("cannot save network %q: %w", name, err)
	}
	if err := writeFile(s.path(name), []byte(text), 0o644); err != nil {
		return fmt.Errorf("cannot save network %q: %w", name, err)
	}
	return nil
}

// Delete removes the definition of a network. Deleting what is absent is success.
func (s *Store) Delete(name string) error {
	if err := vnet.ValidateNetworkName(name); err != nil {
		return fmt.Errorf("cannot delete network %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := os.Remove(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(s.networks)
	}
	if err != nil {
		return fmt.Errorf("cannot delete network %q: %w", name, err)
	}
	return nil
}

func (s *Store) path(name string) string { return filepath.Join(s.networks, name+extension) }

func (s *Store) report(path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reported[path] {
		s.reported[path] = true
		s.log.Warn("file name is not a network's, ignored", "path", path, "err", err)
	}
}
