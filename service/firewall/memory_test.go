package firewall

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// remembering makes a Firewall as a process with that directory does.
func remembering(t testing.TB, program, dir string) *Firewall {
	t.Helper()
	f, err := New(Options{Program: program, RuntimeDir: dir})
	must(t, err)
	t.Cleanup(f.Close)
	return f
}

// allTables are those that iptables makes for us.
var allTables = []string{"filter", "ip6 filter", "ip6 mangle", "ip6 nat", "mangle", "nat"}

// announced is the memory of a process that was killed before it saw them.
func announced() map[string]uint64 {
	tables := map[string]uint64{}
	for _, name := range allTables {
		tables[name] = 0
	}
	return tables
}

// tables lists the names of the nftables tables, those of other families than IPv4 with the family.
func (n *namespace) tables() []string {
	n.t.Helper()
	var names []string
	for line := range strings.Lines(n.run("nft", "list", "tables")) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		names = append(names, strings.TrimPrefix(name, "ip "))
	}
	slices.Sort(names)
	return names
}

// withFamily returns a table's name as nft says it.
func withFamily(table string) string {
	if strings.Contains(table, " ") {
		return table
	}
	return "ip " + table
}

func nftRuleset(n *namespace) string {
	n.t.Helper()
	return n.run("nft", "-s", "list", "ruleset")
}

// empty has iptables make the tables with all their base chains and nothing else.
func (n *namespace) empty(tables ...string) {
	n.t.Helper()
	for _, table := range tables {
		family, name := tableOf(table)
		program := map[uint8]string{unix.NFPROTO_IPV4: "iptables-nft", unix.NFPROTO_IPV6: "ip6tables-nft"}[family]
		for _, c := range baseChains[table] {
			n.sh("%[1]s -t %[2]s -A %[3]s -j ACCEPT; %[1]s -t %[2]s -D %[3]s -j ACCEPT", program, name, c.name)
		}
	}
}

// remembered is the file's content, nil if there is no file.
func remembered(t testing.TB, dir string) map[string]uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "firewall.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	must(t, err)
	var content memoryFile
	must(t, json.Unmarshal(b, &content))
	return content.Tables
}

// patienceEnds returns a function that tells whether patience has ended, after a moment.
func patienceEnds() func() bool {
	deadline := time.Now().Add(patience)
	return func() bool {
		<-time.After(2 * time.Millisecond)
		return time.Now().After(deadline)
	}
}

// eventually polls a condition until patience ends.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// Where no table was, there is none afterwards, whoever removes them.
func TestTablesGo(t *testing.T) {
	for _, test := range []struct {
		name string
		// meanwhile is what happens between installation and removal.
		meanwhile func(t *testing.T, host *namespace, f *Firewall, dir string) *Firewall
	}{
		{"same process", func(_ *testing.T, _ *namespace, f *Firewall, _ string) *Firewall { return f }},
		{"next process", func(t *testing.T, _ *namespace, _ *Firewall, dir string) *Firewall {
			return remembering(t, "iptables-nft", dir)
		}},
		{"next process installs", func(t *testing.T, host *namespace, _ *Firewall, dir string) *Firewall {
			host.run("iptables-nft", "-F", "GANGWAY-INPUT")
			f := remembering(t, "iptables-nft", dir)
			apply(t, f, plan.InstallChains{})
			return f
		}},
		{"killed while installing", func(t *testing.T, _ *namespace, f *Firewall, dir string) *Firewall {
			must(t, f.memory.replace(announced()))
			return remembering(t, "iptables-nft", dir)
		}},
		{"killed while installing, next process installs", func(t *testing.T, _ *namespace, f *Firewall, dir string) *Firewall {
			want := remembered(t, dir)
			must(t, f.memory.replace(announced()))
			f = remembering(t, "iptables-nft", dir)
			apply(t, f, plan.InstallChains{})
			if d := cmp.Diff(want, remembered(t, dir)); d != "" {
				t.Errorf("learned by the next process (-want +got):\n%s", d)
			}
			return f
		}},
		{"killed while removing", func(t *testing.T, host *namespace, _ *Firewall, dir string) *Firewall {
			for _, table := range []string{"filter", "mangle", "nat"} {
				host.sh("for p in iptables-nft ip6tables-nft; do $p -t %[1]s -F; $p -t %[1]s -X; done", table)
			}
			f := remembering(t, "iptables-nft", dir)
			// The kernel frees the rules some time after they went.
			for _, set := range setNames(true) {
				eventually(t, "set "+set+" goes", func() bool { return f.netlink.destroySet(set) == nil })
			}
			if !observe(t, f).Present {
				t.Error("the tables that are left don't count as present: nobody would remove them")
			}
			return f
		}},
		{"flushed and mended", func(t *testing.T, host *namespace, f *Firewall, _ string) *Firewall {
			host.sh("for t in 'ip filter' 'ip mangle' 'ip nat' 'ip6 filter' 'ip6 mangle' 'ip6 nat'; do nft delete table $t; done")
			apply(t, f, plan.InstallChains{})
			return f
		}},
		{"used by others for a while", func(_ *testing.T, host *namespace, f *Firewall, _ string) *Firewall {
			host.sh(`iptables-nft -t nat -A PREROUTING -j ACCEPT; iptables-nft -t nat -D PREROUTING -j ACCEPT
				iptables-nft -t mangle -A OUTPUT -j ACCEPT; iptables-nft -t mangle -D OUTPUT -j ACCEPT
				ip6tables-nft -t nat -A PREROUTING -j ACCEPT; ip6tables-nft -t nat -D PREROUTING -j ACCEPT`)
			return f
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			host := newNamespace(t, "host")
			host.enter()
			host.run("nft", "add table inet others; add chain inet others input { type filter hook input priority 0; }")
			before := nftRuleset(host)
			dir := filepath.Join(t.TempDir(), "run")
			f := remembering(t, "iptables-nft", dir)
			for round := range 2 {
				apply(t, f, plan.InstallChains{})
				if got := slices.Sorted(maps.Keys(remembered(t, dir))); !slices.Equal(got, allTables) {
					t.Fatalf("round %d: remembered: %q", round, got)
				}
				f = test.meanwhile(t, host, f, dir)
				apply(t, f, plan.RemoveFirewall{}, plan.RemoveFirewall{})
				if d := cmp.Diff(before, nftRuleset(host)); d != "" {
					t.Errorf("round %d: ruleset (-before +after):\n%s", round, d)
				}
				if observe(t, f).Present {
					t.Errorf("round %d: something counts as present", round)
				}
				if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
					t.Errorf("round %d: files left: %v %v", round, files, err)
				}
			}
		})
	}
}

// What was there before us, or is somebody else's by now, stays; the other tables go.
func TestTablesStay(t *testing.T) {
	for _, test := range []struct {
		name      string
		before    []string // tables
		meanwhile string
		want      []string
		line      string // must be there afterwards
	}{
		{"all there before", allTables, "", allTables, ""},
		{"IPv6's there before", []string{"ip6 filter"}, "", []string{"ip6 filter"}, ""},
		{"IPv6 rule", nil, "ip6tables-nft -A FORWARD -s 2001:db8::7 -j ACCEPT", []string{"ip6 filter"}, "ip6 saddr 2001:db8::7"},
		{"IPv6 policy", nil, "ip6tables-nft -P FORWARD DROP", []string{"ip6 filter"}, "hook forward priority filter; policy drop"},
		{"IPv6 translation", nil, "ip6tables-nft -t nat -A POSTROUTING -s 2001:db8::7 -j MASQUERADE", []string{"ip6 nat"}, "ip6 saddr 2001:db8::7"},
		{"IPv6 mangle made anew", nil, "nft delete table ip6 mangle; ip6tables-nft -t mangle -A FORWARD -j ACCEPT; ip6tables-nft -t mangle -D FORWARD -j ACCEPT", []string{"ip6 mangle"}, "chain FORWARD"},
		{"IPv6 table gone", nil, "nft delete table ip6 filter", []string{}, ""},
		{"one there before", []string{"nat"}, "", []string{"nat"}, ""},
		{"one there before, mended", []string{"nat"}, "iptables-nft -t nat -F", []string{"nat"}, ""},
		{"rule", nil, "iptables-nft -t nat -A PREROUTING -s 192.0.2.7 -j ACCEPT", []string{"nat"}, "ip saddr 192.0.2.7"},
		{"rule in a chain that we use", nil, "iptables-nft -A FORWARD -s 192.0.2.7 -j ACCEPT", []string{"filter"}, "ip saddr 192.0.2.7"},
		{"chain", nil, "iptables-nft -t mangle -N OTHERS", []string{"mangle"}, "chain OTHERS"},
		{"policy", nil, "iptables-nft -P FORWARD DROP", []string{"filter"}, "hook forward priority filter; policy drop"},
		{"set", nil, "nft add set ip filter others '{ type ipv4_addr; }'", []string{"filter"}, "set others"},
		{"made anew by others", nil, "nft delete table ip nat; iptables-nft -t nat -A POSTROUTING -j ACCEPT; iptables-nft -t nat -D POSTROUTING -j ACCEPT", []string{"nat"}, "chain POSTROUTING"},
		{"restored by others", nil, "iptables-nft-save -t nat | grep -v GANGWAY | iptables-nft-restore", []string{"nat"}, "chain POSTROUTING"},
		{"gone", nil, "nft delete table ip nat", []string{}, ""},
	} {
		for _, mended := range []string{"", ", mended"} {
			t.Run(test.name+mended, func(t *testing.T) {
				t.Parallel()
				host := newNamespace(t, "host")
				host.enter()
				host.empty(test.before...)
				before := nftRuleset(host)
				f := remembering(t, "iptables-nft", t.TempDir())
				apply(t, f, plan.InstallChains{})
				host.sh("%s", test.meanwhile)
				if mended != "" {
					apply(t, f, plan.InstallChains{}) // there was no other process: the memory must follow by itself
				}
				apply(t, f, plan.RemoveFirewall{})
				if got := host.tables(); !slices.Equal(got, test.want) {
					t.Errorf("tables left: %q, want %q", got, test.want)
				}
				after := nftRuleset(host)
				if !strings.Contains(after, test.line) {
					t.Errorf("%q isn't in\n%s", test.line, after)
				}
				if d := cmp.Diff(before, after); d != "" && test.before != nil {
					t.Errorf("ruleset (-before +after):\n%s", d)
				}
				// From now on they are somebody else's, whatever becomes of them.
				host.sh("for p in iptables-nft ip6tables-nft; do $p -t nat -F; $p -t filter -F; done")
				left := nftRuleset(host)
				apply(t, f, plan.InstallChains{}, plan.RemoveFirewall{})
				for _, table := range test.want {
					if !strings.Contains(left, "table "+withFamily(table)+" {") || !slices.Contains(host.tables(), table) {
						t.Errorf("a second installation has taken table %s along", table)
					}
				}
			})
		}
	}
}

// Without a directory nothing is removed that could have been there before.
func TestTablesWithoutMemory(t *testing.T) {
	host := newNamespace(t, "host")
	host.enter()
	f := newFirewall(t, "iptables-nft")
	apply(t, f, plan.InstallChains{}, plan.RemoveFirewall{})
	if got := host.tables(); !slices.Equal(got, allTables) {
		t.Errorf("tables: %q", got)
	}
}

// With the legacy backend nothing is remembered, and what is remembered is left alone.
func TestTablesLegacy(t *testing.T) {
	host := newNamespace(t, "host")
	host.enter()
	dir := t.TempDir()
	legacy := remembering(t, "iptables-legacy", dir)
	apply(t, legacy, plan.InstallChains{})
	if got := remembered(t, dir); got != nil {
		t.Errorf("remembered: %v", got)
	}
	apply(t, legacy, plan.RemoveFirewall{})

	apply(t, remembering(t, "iptables-nft", dir), plan.InstallChains{})
	before := nftRuleset(host)
	legacy = remembering(t, "iptables-legacy", dir)
	if legacy.ownsTables() {
		t.Error("tables of nf_tables count as the legacy backend's")
	}
	if err := legacy.removeTables(); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(before, nftRuleset(host)); d != "" || len(remembered(t, dir)) != len(allTables) {
		t.Errorf("remembered: %v, ruleset (-before +after):\n%s", remembered(t, dir), d)
	}
}

// What was remembered in another boot, or can't be read, is about no table of now.
func TestMemoryOfOthers(t *testing.T) {
	for _, test := range []struct{ name, content string }{
		{"another boot", `{"boot": "11111111-2222-3333-4444-555555555555", "tables": {"filter": 1, "mangle": 1, "nat": 1}}`},
		{"garbage", `{"boot`},
	} {
		t.Run(test.name, func(t *testing.T) {
			host := newNamespace(t, "host")
			host.enter()
			host.empty("nat")
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "firewall.json"), []byte(test.content), 0o600))
			f := remembering(t, "iptables-nft", dir)
			apply(t, f, plan.InstallChains{}, plan.RemoveFirewall{})
			if got := host.tables(); !slices.Equal(got, []string{"nat"}) {
				t.Errorf("tables: %q", got)
			}
		})
	}
}

// Nothing is installed that could not be removed as it came.
func TestMemoryUnwritable(t *testing.T) {
	host := newNamespace(t, "host")
	host.enter()
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	f := remembering(t, "iptables-nft", filepath.Join(file, "run"))
	err := f.Apply(context.Background(), []plan.Op{plan.InstallChains{}})[0].Err
	if err == nil || !strings.Contains(err.Error(), "cannot remember firewall tables") {
		t.Errorf("error is %v", err)
	}
	if got := host.tables(); len(got) > 0 {
		t.Errorf("tables: %q", got)
	}
}

// Another program's rules survive installations and removals at the same time, and its table
// with them.
func TestTablesAmongOthers(t *testing.T) {
	host := newNamespace(t, "host")
	host.enter()
	f := remembering(t, "iptables-nft", t.TempDir())
	done := make(chan error, 1)
	go func() {
		for range 40 {
			for _, verb := range []string{"-A", "-C", "-D"} {
				if _, err := host.try("iptables-nft", "-w", "-t", "nat", verb, "PREROUTING", "-s", "192.0.2.7", "-j", "ACCEPT"); err != nil {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			must(t, err)
			return
		default:
			// That two programs thwart each other is no news, and no loss: it is tried again.
			f.Apply(context.Background(), []plan.Op{plan.InstallChains{}, plan.RemoveFirewall{}})
		}
	}
}
