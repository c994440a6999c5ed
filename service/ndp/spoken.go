package ndp

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"gangway/service/ndp/message"
)

// maxSpoken bounds how many options are remembered of a network's bridge.
const maxSpoken = 64

// spoken are the options with lifetimes, but prefixes, that guests were told by their bridge, by what they say.
type spoken map[string]*spokenOption

type spokenOption struct {
	option []byte
	// ended is since when they are told that it is over, zero if it isn't.
	ended time.Time
}

// recall takes in what was said in an earlier life.
func (s spoken) recall(bodies []body) {
	for _, b := range bodies {
		for kind, option := range b.ra.Options() {
			if _, lasts := message.Remaining(option); lasts && kind != optionPrefix && len(s) < maxSpoken {
				s[timeless(kind, option)] = &spokenOption{option: slices.Clone(option)}
			}
		}
	}
}

// over returns what is no longer said, and was less than two hours ago, sorted.
func (s spoken) over(current map[string][]byte, now time.Time) []string {
	var list []string
	for _, text := range slices.Sorted(maps.Keys(s)) {
		if current[text] == nil && (s[text].ended.IsZero() || now.Sub(s[text].ended) < retirement) {
			list = append(list, text)
		}
	}
	return list
}

// end returns the option by which guests forget one; without name servers that are in a current one, and nil if
// nothing is left to be forgotten.
func (s spoken) end(text string, current map[string][]byte) []byte {
	option := message.Ended(s[text].option)
	if option == nil || option[0] != optionRDNSS {
		return option
	}
	stays := map[netip.Addr]bool{}
	for _, c := range current {
		if c[0] == optionRDNSS {
			message.WithServers(c, func(a netip.Addr) bool { stays[a] = true; return true })
		}
	}
	return message.WithServers(option, func(a netip.Addr) bool { return !stays[a] })
}

// note takes in what is said now.
func (s spoken) note(c *composition, now time.Time) {
	for text, option := range c.current {
		if s[text] != nil || len(s) < maxSpoken || s.dropOldest() {
			s[text] = &spokenOption{option: option}
		}
	}
	for text, o := range s {
		switch {
		case c.current[text] != nil:
		case o.ended.IsZero():
			o.ended = now
		case now.Sub(o.ended) >= retirement:
			delete(s, text)
		}
	}
}

func (s spoken) dropOldest() bool {
	oldest := ""
	for text, o := range s {
		if !o.ended.IsZero() && (oldest == "" || o.ended.Before(s[oldest].ended)) {
			oldest = text
		}
	}
	delete(s, oldest)
	return oldest != ""
}
