package ndp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/vnet"
)

// fileName is the memory's, in the state directory; fileVersion is its format's, and maxFile the size
// in bytes beyond which it isn't ours.
const (
	fileName    = "ndp.json"
	fileVersion = 1
	maxFile     = 64 << 20
)

// The memory on disk. Times are of the wall clock.
type (
	savedMemory struct {
		Version  int                     `json:"version"`
		Networks map[string]savedNetwork `json:"networks"`
	}
	savedNetwork struct {
		Bridge  string        `json:"bridge,omitempty"`
		Inner   string        `json:"inner,omitempty"`
		Routers []savedLesson `json:"routers"`
	}
	savedLesson struct {
		Address  netip.Addr                 `json:"address"`
		MAC      string                     `json:"mac"`
		Uplink   string                     `json:"uplink,omitempty"`
		Default  bool                       `json:"default,omitempty"`
		Prefixes []netip.Prefix             `json:"prefixes,omitempty"`
		Left     time.Time                  `json:"left,omitzero"`
		Retired  map[netip.Prefix]time.Time `json:"retired,omitempty"`
		Heard    []savedBody                `json:"heard,omitempty"`
	}
	savedBody struct {
		At   time.Time `json:"at"`
		Body []byte    `json:"body"`
	}
)

// save writes the memory, if it is other than what is on disk.
func (r *Room) save() error {
	if !r.dirty {
		return nil
	}
	now, wall := r.now(), r.wall()
	all := savedMemory{Version: fileVersion, Networks: map[string]savedNetwork{}}
	for name, n := range r.networks {
		if len(n.lessons) > 0 {
			all.Networks[name] = r.savedNetwork(n, now, wall)
		}
	}
	if err := writeWhole(r.file, all); err != nil {
		return fmt.Errorf("cannot remember in %q what guests were taught: %w", r.file, err)
	}
	r.dirty, r.saveBy = false, time.Time{}
	return nil
}

func (r *Room) savedNetwork(n *network, now, wall time.Time) savedNetwork {
	s := savedNetwork{Bridge: n.bridge, Inner: n.inner}
	for _, k := range slices.SortedFunc(maps.Keys(n.lessons), key.compare) {
		l := n.lessons[k]
		saved := savedLesson{Address: k.address, MAC: k.mac.String(), Uplink: l.uplink, Default: l.asDefault,
			Prefixes: slices.SortedFunc(maps.Keys(l.prefixes), comparePrefixes)}
		if !l.left.IsZero() {
			saved.Left = r.wallOf(l.left, now, wall)
		}
		for p, t := range l.retired {
			if saved.Retired == nil {
				saved.Retired = map[netip.Prefix]time.Time{}
			}
			saved.Retired[p] = r.wallOf(t, now, wall)
		}
		for _, b := range l.bodies {
			saved.Heard = append(saved.Heard, savedBody{r.wallOf(b.at, now, wall), b.ra.Body()})
		}
		s.Routers = append(s.Routers, saved)
	}
	return s
}

// load reads the memory. What can't be understood is put aside, for a person to look at.
func (r *Room) load() {
	data, err := readFile(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var all savedMemory
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err == nil && all.Version != fileVersion {
		err = fmt.Errorf("its version is %d, not %d", all.Version, fileVersion)
	}
	if err != nil {
		aside := r.file + ".corrupt"
		err = errors.Join(err, os.Rename(r.file, aside))
		r.log.Error("cannot read what guests were taught; old routers won't be withdrawn", "file", r.file, "aside", aside, "error", err)
		return
	}
	now, wall := r.now(), r.wall()
	for name, saved := range all.Networks {
		if err := vnet.ValidateNetworkName(name); err != nil {
			r.log.Warn("cannot use what guests of a network were taught", "network", name, "error", err)
			continue
		}
		n := newNetwork()
		n.bridge, n.inner = saved.Bridge, saved.Inner
		for _, s := range saved.Routers {
			if err := r.loadLesson(n, s, now, wall); err != nil {
				r.log.Warn("cannot use what guests were taught of a router", "network", name, "router", s.Address, "error", err)
			}
		}
		n.expire(now)
		n.untold = n.withdrawn()
		r.networks[name] = n
	}
}

func (r *Room) loadLesson(n *network, s savedLesson, now, wall time.Time) error {
	mac, err := message.ParseMAC(s.MAC)
	switch {
	case err != nil:
		return err
	case !s.Address.Is6() || !s.Address.IsLinkLocalUnicast():
		return errors.New("its address isn't link-local")
	case len(n.lessons) >= maxLessons:
		return errors.New("too many routers")
	}
	l := newLesson()
	l.uplink, l.asDefault = s.Uplink, s.Default
	for _, p := range s.Prefixes {
		l.prefixes[p] = true
	}
	if !s.Left.IsZero() {
		l.left = r.ofWall(s.Left, now, wall)
	}
	for p, t := range s.Retired {
		l.retired[p] = r.ofWall(t, now, wall)
	}
	for _, b := range s.Heard {
		ra, err := message.ParseBody(b.Body, s.Address, mac)
		if err != nil {
			r.log.Warn("cannot use what a router said", "router", s.Address, "error", err)
			continue // it is withdrawn in our words
		}
		l.bodies = append(l.bodies, newBody(ra, r.ofWall(b.At, now, wall)))
	}
	n.lessons[key{s.Address.WithZone(""), mac}] = l
	return nil
}

// readFile reads a regular file that isn't larger than ours can be.
func readFile(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	return os.ReadFile(path)
}

// writeWhole replaces the file: after a crash it is the old one or the new one.
func writeWhole(file string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	dir := filepath.Dir(file)
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
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
