package dnsmasq

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gangway/service/vnet"
)

const leaseSuffix = ".leases"

// formerSuffix is of the file beside it with the leases of subnets that the network had before.
const formerSuffix = ".former"

// formerPath is where the leases go that are pruned from the lease file.
func formerPath(leases string) string { return strings.TrimSuffix(leases, leaseSuffix) + formerSuffix }

// dnsmasq rewrites its lease file in place: it is empty, then partly there, then whole.
// A file that was changed within settled is read again, every settleStep, until it is
// the same twice and ends with a line; one that is empty must stay so for settled, since
// leases that seem to be gone for a moment would be announced as gone.
const (
	settled     = 50 * time.Millisecond
	settleStep  = 2 * time.Millisecond
	settleLimit = 200 * time.Millisecond
)

// lease is a line of the lease file.
type lease struct {
	vnet.Lease
	clientID []byte
}

// parseLeases returns what a lease file says of DHCPv4. Lines that it doesn't understand, such
// as the last one of a file that is being written, are left out.
func parseLeases(content []byte) []lease {
	var leases []lease
	for line := range bytes.Lines(content) {
		text, whole := strings.CutSuffix(string(line), "\n")
		if l, ok := parseLease(text); ok && whole {
			leases = append(leases, l)
		}
	}
	return leases
}

// parseLease parses "EXPIRY MAC ADDRESS NAME CLIENT-ID": Unix seconds or 0, "*" for none.
func parseLease(line string) (lease, bool) {
	var l lease
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return l, false
	}
	expiry, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || expiry < 0 || expiry > 1<<40 {
		return l, false
	}
	if expiry != 0 {
		l.Expires = time.Unix(expiry, 0)
	}
	mac, err := net.ParseMAC(fields[1]) // "06-…" stands for other hardware, which no bridge has
	if err != nil {
		return l, false
	}
	l.MAC = mac.String()
	if l.Address, err = netip.ParseAddr(fields[2]); err != nil || !l.Address.Is4() {
		return l, false
	}
	if fields[3] != "*" {
		l.Hostname = fields[3]
	}
	l.clientID = []byte{}
	if fields[4] != "*" {
		if l.clientID, err = hex.DecodeString(strings.ReplaceAll(fields[4], ":", "")); err != nil {
			return l, false
		}
	}
	return l, true
}

// readLeases reads a lease file that dnsmasq may be rewriting, and waits until it is whole. No
// file is no leases.
func readLeases(ctx context.Context, path string) ([]lease, error) {
	content, age, err := readLeaseFile(path)
	fresh := age < settled
	deadline := time.Now().Add(settleLimit)
	for err == nil && fresh && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(settleStep):
		}
		var again []byte
		again, age, err = readLeaseFile(path)
		fresh = age < settled
		same := bytes.Equal(content, again)
		content = again
		if same && len(content) != 0 && content[len(content)-1] == '\n' {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return parseLeases(content), nil
}

// readLeaseFile returns a lease file's content and how long ago it was changed; no file is empty and
// has always been.
func readLeaseFile(path string) (content []byte, age time.Duration, err error) {
	content, err = os.ReadFile(path)
	if err == nil {
		var info os.FileInfo
		if info, err = os.Stat(path); err == nil {
			return content, max(0, time.Since(info.ModTime())), nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, math.MaxInt64, nil
	}
	return nil, 0, err
}

// believed is how long a lease file must have been left alone for a lease that isn't in it any
// more to be gone. On a busy machine dnsmasq may be kept from writing what it has just
// truncated for a good while; nobody needs to know of an end sooner.
const believed = time.Second

// look reads a network's leases for Observe, without waiting: what is new is believed at
// once, what is missing when the file has settled, for which there will be another poke.
func (r *Room) look(network, path string) ([]lease, error) {
	content, age, err := readLeaseFile(path)
	if err != nil {
		return nil, err
	}
	leases := parseLeases(content)
	r.mu.Lock()
	defer r.mu.Unlock()
	if age < believed {
		held := 0
		for _, old := range r.seen[network] {
			// A guest that has another address now doesn't have the old one.
			if !slices.ContainsFunc(leases, func(l lease) bool { return l.MAC == old.MAC }) {
				leases = append(leases, old)
				held++
			}
		}
		if held > 0 {
			time.AfterFunc(believed-age, func() { r.poke("leases settled") })
		}
	}
	r.seen[network] = leases
	return slices.Clone(leases), nil
}

// forgetSeen has the next look believe what it finds: the file was changed by us.
func (r *Room) forgetSeen(network string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seen, network)
}

// observeLeases returns the leases in force of every network that has a lease file,
// sorted by address.
func (r *Room) observeLeases() (map[string][]vnet.Lease, error) {
	entries, err := os.ReadDir(r.leases)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot look for leases: %w", err)
	}
	all := map[string][]vnet.Lease{}
	now := r.clock()
	for _, e := range entries {
		network, ok := strings.CutSuffix(e.Name(), leaseSuffix)
		if !ok || vnet.ValidateNetworkName(network) != nil {
			continue
		}
		leases, err := r.look(network, filepath.Join(r.leases, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("cannot read leases of %q: %w", network, err)
		}
		former, err := formerLeases(filepath.Join(r.leases, e.Name()), leases)
		if err != nil {
			return nil, err
		}
		leases = append(leases, former...)
		for _, l := range leases {
			if l.Expires.IsZero() || l.Expires.After(now) {
				all[network] = append(all[network], l.Lease)
			}
		}
		slices.SortFunc(all[network], func(a, b vnet.Lease) int {
			return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.MAC, b.MAC))
		})
	}
	return all, nil
}

// pruneLeases removes leases outside the subnet: dnsmasq would keep them, and their names,
// after a renumbering. Its server must not be running. They are set aside, and first, so that a
// process which comes after one that was killed meanwhile knows who hasn't been told yet.
func pruneLeases(path string, subnet netip.Prefix, now time.Time) error {
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot read leases: %w", err)
	}
	before, err := os.ReadFile(formerPath(path))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot read former leases: %w", err)
	}
	var kept, former []byte
	known := map[string]bool{}
	for line := range bytes.Lines(content) {
		switch l, ok := parseLease(strings.TrimSuffix(string(line), "\n")); {
		case !ok:
		case subnet.Contains(l.Address):
			kept, known[l.MAC] = append(kept, line...), true
		default:
			former, known[l.MAC] = append(former, line...), true
		}
	}
	for line := range bytes.Lines(before) {
		l, ok := parseLease(strings.TrimSuffix(string(line), "\n"))
		if ok && !known[l.MAC] && !subnet.Contains(l.Address) && l.Expires.After(now) {
			former = append(former, line...)
		}
	}
	if !bytes.Equal(former, before) {
		if err := writeFile(formerPath(path), former); err != nil {
			return err
		}
	}
	if bytes.Equal(kept, content) {
		return nil
	}
	return writeFile(path, kept)
}

// formerLeases returns the leases of former subnets, of those who have none of the present one.
func formerLeases(path string, present []lease) ([]lease, error) {
	content, err := os.ReadFile(formerPath(path))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot read former leases: %w", err)
	}
	return slices.DeleteFunc(parseLeases(content), func(f lease) bool {
		return slices.ContainsFunc(present, func(l lease) bool { return l.MAC == f.MAC })
	}), nil
}

func (r *Room) forgetLeases(network string) error {
	defer r.forgetSeen(network)
	path := r.files(network).leases
	for _, path := range []string{path, formerPath(path)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot forget leases of %q: %w", network, err)
		}
	}
	return nil
}
