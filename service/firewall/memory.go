package firewall

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// memory is which tables weren't there before us. It is a file that is always whole, and says
// so before iptables makes them: whoever removes them may be another process.
type memory struct {
	file string // "" to remember nothing
	// tables holds the kernel's handle of each table, by name; 0 from before iptables makes
	// it until it was seen with a chain of ours.
	tables map[string]uint64
}

// memoryFile is the file's content. Handles of another boot, should the directory outlive
// one, would be those of other tables.
type memoryFile struct {
	Boot   string            `json:"boot"`
	Tables map[string]uint64 `json:"tables"`
}

// loadMemory reads the file below dir. One that can't be understood is put aside: then the
// tables stay.
func loadMemory(dir string, log *slog.Logger) memory {
	if dir == "" {
		return memory{}
	}
	m := memory{file: filepath.Join(dir, "firewall.json")}
	var content memoryFile
	b, err := os.ReadFile(m.file)
	if err == nil {
		err = json.Unmarshal(b, &content)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("cannot read which firewall tables are ours; they will not be removed", "file", m.file, "error", err)
		_ = os.Rename(m.file, m.file+".bad")
		return m
	}
	if content.Boot == bootID() {
		m.tables = content.Tables
	}
	return m
}

// replace puts tables on disk, then in force; no file stands for none.
func (m *memory) replace(tables map[string]uint64) error {
	if m.file == "" || maps.Equal(m.tables, tables) {
		return nil
	}
	var err error
	if len(tables) == 0 {
		if err = os.Remove(m.file); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		err = writeWhole(m.file, memoryFile{bootID(), tables})
	}
	if err != nil {
		return fmt.Errorf("cannot remember firewall tables in %q: %w", m.file, err)
	}
	m.tables = tables
	return nil
}

// writeWhole replaces the file: after a crash it is the old one or the new one.
func writeWhole(file string, value any) error {
	b, err := json.MarshalIndent(value, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// bootID identifies this boot of the kernel (random(4)), "" where /proc isn't there.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// ownsTables tells whether there are tables to remove once nothing of ours is in them.
func (f *Firewall) ownsTables() bool { return len(f.owned()) > 0 }

// owned lists those tables, sorted.
func (f *Firewall) owned() []string {
	var names []string
	for name := range f.memory.tables {
		if p := f.of(name); p != nil && p.nft {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// announceTables remembers those tables that iptables is about to make. One that was ours and is gone
// counts as absent like any other.
func (f *Firewall) announceTables(readings []reading) error {
	if f.memory.file == "" {
		return nil
	}
	tables := map[string]uint64{}
	maps.Copy(tables, f.memory.tables)
	for _, r := range readings {
		if r.err != nil || !r.nft {
			continue
		}
		for _, c := range r.want {
			name := r.prefix + c.table
			_, exists, err := f.netlink.table(name)
			if err != nil {
				return err
			}
			if !exists {
				tables[name] = 0
			}
		}
	}
	return f.memory.replace(tables)
}

// settleTables brings the memory up to date with what was just read: it learns the handles of announced
// tables that have a chain of ours, and forgets tables that somebody else has made since.
func (f *Firewall) settleTables(readings []reading) error {
	tables := maps.Clone(f.memory.tables)
	for _, r := range readings {
		if r.err != nil || !r.nft {
			continue
		}
		for name, handle := range f.memory.tables {
			if f.of(name) != r.family {
				continue
			}
			t, exists, err := f.netlink.table(name)
			if err != nil {
				return err
			}
			switch {
			case !exists: // until it is announced again, or removed
			case handle == 0 && slices.ContainsFunc(r.want, func(c chain) bool { return r.prefix+c.table == name && r.rules.has(c) }):
				tables[name] = t.handle
			case handle != t.handle:
				delete(tables, name)
			}
		}
	}
	return f.memory.replace(tables)
}

// removeTables removes the tables that weren't there before us, but for those that somebody else
// uses now: they are theirs from then on, and forgotten like the others.
func (f *Firewall) removeTables() error {
	kept := map[string]uint64{}
	maps.Copy(kept, f.memory.tables)
	var errs []error
	for _, name := range f.owned() {
		deleted, err := f.netlink.deleteUnused(name, f.memory.tables[name])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		delete(kept, name)
		f.log.Debug("removing firewall table", "table", name, "deleted", deleted)
	}
	return errors.Join(append(errs, f.memory.replace(kept))...)
}
