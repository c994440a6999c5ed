package system_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// picture is the laptop's network state as text, by the command that shows it.
type picture map[string]string

// fleeting is what changes by itself in the output of the commands.
var fleeting = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`(?m)^#.*\n`), ""},
	{regexp.MustCompile(`\[\d+:\d+\]`), "[]"},
	{regexp.MustCompile(`valid_lft \S+ preferred_lft \S+`), ""},
	{regexp.MustCompile(` expires \d+sec`), ""},
	{regexp.MustCompile(`  *(timeout|packets|bytes|bucketsize|initval|age|used|[a-z_]*_timer) *\S+`), ""},
	// How nft shows a target of iptables' depends on which family's it met first; iptables-save shows all of them.
	{regexp.MustCompile(`(xt match "?set"?.*counter).*\n`), "$1\n"},
	{regexp.MustCompile(` +\n`), "\n"},
}

// look takes the picture of the kernel.
func (w *world) look() picture {
	w.t.Helper()
	p := picture{}
	for _, line := range []string{
		"ip -4 addr show", "ip -6 addr show", "ip -4 rule show", "ip -6 rule show",
		"ip -4 route show table all", "ip -6 route show table all", "ip -d link show type bridge", "bridge -d link show",
		"iptables-save", "ip6tables-save", "ipset save", "nft -s list ruleset",
	} {
		out, err := w.Laptop.Run(w.ctx, strings.Fields(line)...)
		w.must(err)
		for _, f := range fleeting {
			out = f.pattern.ReplaceAllString(out, f.by)
		}
		if strings.Contains(line, "route") || strings.HasPrefix(line, "ipset") {
			out = sortLines(out)
		}
		if strings.HasPrefix(line, "nft") && out != "" { // tables are listed in the order in which they were made
			tables := strings.Split("\n"+strings.TrimRight(out, "\n"), "\ntable ")
			slices.Sort(tables)
			out = strings.Join(tables, "\ntable ")
		}
		p[line] = out
	}
	return p
}

// lookWhole is look, and the sysctls and processes.
func (w *world) lookWhole() picture {
	w.t.Helper()
	p := w.look()
	out, err := w.Laptop.Run(w.ctx, "sh", "-c", "cd /proc/sys/net && { grep -rs . ipv4/conf ipv6/conf ipv4/neigh ipv6/neigh bridge; grep -s . ipv4/ip_forward ipv4/*; true; }")
	w.must(err)
	p["sysctl"] = sortLines(regexp.MustCompile(`(?m)^ipv4/(tcp_available|tcp_allowed|tcp_fastopen_key|udp_mem|tcp_mem|inet_peer).*\n`).ReplaceAllString(out, ""))
	p["processes"] = strings.Join(w.processes(""), "\n")
	return p
}

func sortLines(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// processes lists "PID NAME" of what runs in the laptop's namespace under that name, "" for all.
func (w *world) processes(name string) []string {
	w.t.Helper()
	out, err := exec.CommandContext(w.ctx, "ip", "netns", "pids", w.Laptop.Namespace).Output()
	w.must(err)
	var list []string
	for _, pid := range strings.Fields(string(out)) {
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue // gone meanwhile
		}
		if c := strings.TrimSpace(string(comm)); name == "" || c == name {
			list = append(list, pid+" "+c)
		}
	}
	slices.Sort(list)
	return list
}

// diff is "" if the pictures are the same.
func (p picture) diff(other picture) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(p)) {
		if d := cmp.Diff(strings.Split(p[key], "\n"), strings.Split(other[key], "\n")); d != "" {
			b.WriteString(key + ":\n" + d)
		}
	}
	return b.String()
}

// files returns the text of every file below a directory of the lab's, by path.
func (w *world) files(dir string) picture {
	w.t.Helper()
	p := picture{}
	base := filepath.Join(w.Dir(), dir)
	w.must(filepath.WalkDir(base, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		p[strings.TrimPrefix(path, base)] = string(b)
		return err
	}))
	return p
}
