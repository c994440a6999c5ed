package firewall

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// mark is what is written down with a rule of ours: what it was made with and where it stands, and a part of
// the digest, which has no spaces and, in all, no bound.
type mark struct{ place, part string }

// partLength is how much of the digest one rule has: the kernel keeps 256 bytes with a rule. The rules at
// the outer end, which are by far the most, are more than enough.
const partLength = 48

// markOf is the mark of the rule with the index of a chain with that many rules, which were made by that
// edition, for what variant says.
func markOf(digest, edition, variant string, index, count int) mark {
	sum := sha256.Sum256([]byte(digest))
	begin := min(index*partLength, len(digest))
	return mark{
		place: fmt.Sprintf("%x %s %s %d/%d", sum[:4], edition, variant, index+1, count),
		part:  digest[begin:min(begin+partLength, len(digest))],
	}
}

func (m mark) String() string { return m.place + " " + m.part }

// parseMark reads the user data of a rule; it returns the zero mark if ours isn't in it.
func parseMark(b []byte) (m mark) {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == userdataGuard {
			text := unix.ByteSliceToString(b[2 : 2+int(b[1])])
			if i := strings.LastIndexByte(text, ' '); i >= 0 {
				m = mark{text[:i], text[i+1:]}
			}
			return m
		}
		b = b[2+int(b[1]):]
	}
	return mark{}
}

// digest puts the digest together that is written down with the chain's rules.
func (s standing) digest() (digest string) {
	for _, m := range s.rules {
		digest += m.part
	}
	return digest
}

// has tells whether the chain has exactly the rules that were installed with the digest.
func (s standing) has(digest, edition, variant string) bool {
	for i, m := range s.rules {
		if m != markOf(digest, edition, variant, i, len(s.rules)) {
			return false
		}
	}
	return len(s.rules) > 0
}

// watched is what was last seen of our tables.
type watched struct {
	valid      bool
	generation uint32 // of nftables
	// ends holds the index of each interface that a chain stands at. A kernel that binds chains to
	// interfaces and not to names (before 6.16) takes the binding or the chain away with the interface,
	// and counts no new generation.
	ends map[string]int
	// present is true when there is a table of ours.
	present bool
	digests map[string]string
	forward forwardLook
}

// lookAtTables brings watched up to date; generation was asked for a moment ago, 0 without nf_tables.
func (f *Firewall) lookAtTables(generation uint32) error {
	if generation == 0 {
		f.watched = watched{}
		return nil
	}
	if f.watched.valid && f.watched.generation == generation && f.endsStand() {
		return nil
	}
	f.watched.valid = false
	guards, err := f.netlink.lookWhole(guardTable)
	if err != nil {
		return err
	}
	forward, err := f.netlink.lookWhole(forwardTable)
	if err != nil {
		return err
	}
	forward6, err := f.netlink.lookWhole(forward6Table)
	if err != nil {
		return err
	}
	seen := watched{valid: true, generation: generation, ends: map[string]int{}, present: guards.ours || forward.ours || forward6.ours,
		digests: map[string]string{}, forward: lookAtForward(forward, forward6)}
	if guards.ours {
		for _, c := range guards.chains {
			if c.at.device != "" {
				seen.ends[c.at.device] = f.netlink.index(c.at.device)
			}
		}
		for name := range guards.chains {
			if network, ok := networkOf(name); ok {
				seen.digests[network] = guards.digest(network, seen.ends)
			}
		}
	}
	f.watched = seen
	return nil
}

// endsStand tells whether the interfaces are those that they were.
func (f *Firewall) endsStand() bool {
	for name, index := range f.watched.ends {
		if f.netlink.index(name) != index {
			return false
		}
	}
	return true
}

// digest returns the digest of the network's guard, "" if that isn't whole: if a chain is missing, or
// stands elsewhere than at one interface that exists, or has other rules than were installed together, or
// there is one of another kind of guard.
func (f found) digest(network string, ends map[string]int) string {
	suffixes, others := linkSuffixes, bridgeSuffixes
	if _, ok := f.chains[network+bridgeSuffix]; ok {
		suffixes, others = bridgeSuffixes, linkSuffixes
	}
	for _, suffix := range others {
		if _, ok := f.chains[network+suffix]; ok && suffix != refusedSuffix {
			return ""
		}
	}
	digest := f.chains[network+suffixes[0]].digest()
	for _, suffix := range suffixes {
		c := f.chains[network+suffix]
		want := hook{}
		if suffix != refusedSuffix {
			want = ingress(c.at.device, policyOf(suffix))
		}
		if f.dormant || c.at != want || suffix != refusedSuffix && ends[c.at.device] == 0 || !c.has(digest, edition(), c.at.device) {
			return ""
		}
	}
	return digest
}
