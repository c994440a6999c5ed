package store

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// seedSalt makes the seed ours alone. It must never change: bridges would change their MACs.
const seedSalt = "org.gangway.Gangway1 seed 1"

// Seed returns the machine's identity, 64 hexadecimal digits, from which stable MAC addresses
// are derived. It is a hash of /etc/machine-id, keyed so that the id can't be had from what we
// show of it (machine-id(5) asks for that); a machine without an id gets a random one, once.
func (s *Store) Seed() string { return s.seed }

func (s *Store) loadSeed() error {
	path := s.options.MachineID
	if path == "" {
		path = "/etc/machine-id"
	}
	if data, err := readFile(path); err == nil {
		if id := strings.TrimSpace(string(data)); isHex(id, 32) && strings.Trim(id, "0") != "" {
			mac := hmac.New(sha256.New, []byte(id))
			mac.Write([]byte(seedSalt))
			s.seed = hex.EncodeToString(mac.Sum(nil))
			return nil
		}
	}
	path = filepath.Join(s.options.StateDir, seedName)
	data, err := readFile(path)
	if seed := strings.TrimSpace(string(data)); err == nil && isHex(seed, 64) {
		s.seed = seed
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read seed %q: %w", path, err)
	}
	var random [32]byte
	rand.Read(random[:]) // never fails
	s.seed = hex.EncodeToString(random[:])
	if err := writeFile(path, []byte(s.seed+"\n"), 0o600); err != nil {
		return fmt.Errorf("cannot write seed %q: %w", path, err)
	}
	return nil
}

func isHex(text string, length int) bool {
	_, err := hex.DecodeString(text)
	return err == nil && len(text) == length
}
