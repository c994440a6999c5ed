package dnsmasq

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gangway/service/vnet"
)

// maxLog is how many bytes a server's log may have before it is emptied; it lies in memory.
const maxLog = 256 << 10

// files are the paths of what belongs to one network's server. All but leases lie
// in dir and go with the server.
type files struct {
	dir       string
	config    string
	dhcpHosts string // reservations (dhcp-hostsfile)
	names     string // names of reservations with an address (addn-hosts)
	record    string
	log       string // the server's standard error
	leases    string
}

func (r *Room) files(network string) files {
	dir := filepath.Join(r.runtime, network)
	return files{
		dir:       dir,
		config:    filepath.Join(dir, "dnsmasq.conf"),
		dhcpHosts: filepath.Join(dir, "dhcp-hosts"),
		names:     filepath.Join(dir, "names"),
		record:    filepath.Join(dir, "server.json"),
		log:       filepath.Join(dir, "log"),
		leases:    filepath.Join(r.leases, network+leaseSuffix),
	}
}

// record is what must be known of a server by a process that comes after this one. dnsmasq
// can't be asked for any of it. It is bound to one process: the id may be recycled,
// the id together with the start time may not.
type record struct {
	Network string
	PID     int
	// Start is the process's start time in clock ticks since boot (proc(5), stat field 22).
	Start          uint64
	Digest         string
	HostsDigest    string
	Upstreams      []vnet.Upstream
	KnownUpstreams bool
}

func readRecord(path string) (record, error) {
	var rec record
	b, err := os.ReadFile(path)
	if err != nil {
		return rec, err
	}
	err = json.Unmarshal(b, &rec)
	return rec, err
}

func (r *Room) writeRecord(rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("cannot record server of %q: %w", rec.Network, err)
	}
	return writeFile(r.files(rec.Network).record, b)
}

// writeFile replaces a file in one step: who reads it finds the old or the new.
func writeFile(path string, content []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	// dnsmasq reads it as its own user, whatever our umask is.
	if err := os.Chmod(tmp, 0o644); err != nil {
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	return nil
}

// makeDir makes a directory that dnsmasq's user may search.
func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("cannot make directory %q: %w", path, err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		return fmt.Errorf("cannot make directory %q: %w", path, err)
	}
	return nil
}

// lastLine returns the last line of a log that says something, without the program's name.
func lastLine(path string) string {
	b, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), "dnsmasq: ")
}

// logSize returns how long the log is, having emptied it if that is too long.
func logSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if info.Size() <= maxLog {
		return info.Size()
	}
	// The server writes with O_APPEND: it goes on at the new end.
	if os.Truncate(path, 0) == nil {
		return 0
	}
	return info.Size()
}

// complaint returns the first line behind offset in the log with which the server says that
// it could not use one of the files, "" if there is none.
func complaint(log string, offset int64, paths ...string) string {
	f, err := os.Open(log)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.NewSectionReader(f, offset, maxLog))
	for line := range strings.Lines(string(b)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "dnsmasq: ")
		for _, word := range []string{"bad ", "cannot ", "failed ", "error "} {
			if !strings.Contains(line, word) {
				continue
			}
			for _, path := range paths {
				if strings.Contains(line, path) {
					return line
				}
			}
		}
	}
	return ""
}

// removeFiles removes what belongs to a server but for its leases.
func (f files) removeFiles() error {
	if err := os.RemoveAll(f.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove %q: %w", f.dir, err)
	}
	return nil
}
