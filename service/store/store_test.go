package store

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/service/vnet"
)

// lab is a store's directories, and what it logged.
type lab struct {
	Options
	log bytes.Buffer
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{Options: Options{
		ConfigDir:  filepath.Join(dir, "etc"),
		StateDir:   filepath.Join(dir, "var"),
		RuntimeDir: filepath.Join(dir, "run"),
	}}
	l.Log = slog.New(slog.NewTextHandler(&l.log, nil))
	return l
}

func (l *lab) open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(l.Options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write puts a file among the definitions.
func (l *lab) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(l.ConfigDir, "networks", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func definitions(t *testing.T, s *Store) []Definition {
	t.Helper()
	list, err := s.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func names(list []Definition) []string {
	var out []string
	for _, d := range list {
		out = append(out, d.Name)
	}
	return out
}

// fileNames lists a directory, hidden files too.
func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

var equalSettings = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
var equalAddresses = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestSaveWritesWhatDefinitionsRead(t *testing.T) {
	l := newLab(t)
	s := l.open(t)
	if got := definitions(t, s); got != nil {
		t.Fatalf("without a directory: %v, want none", got)
	}
	lab := vnet.DefaultSettings("lab")
	lab.Bridge, lab.IPv4Subnet, lab.MTU = "gway1", netip.MustParsePrefix("10.7.0.0/24"), 1400
	lab.DHCPHosts = []vnet.DHCPHost{
		{MAC: "52:54:00:00:00:01", Address: netip.MustParseAddr("10.7.0.9"), Hostname: "build"},
		{MAC: "52:54:00:00:00:02", Hostname: "other"},
	}
	plain := vnet.DefaultSettings("a-b")
	for name, settings := range map[string]vnet.Settings{"lab": lab, "a-b": plain, "a": vnet.DefaultSettings("a")} {
		if err := s.Save(name, settings); err != nil {
			t.Fatal(err)
		}
	}
	want := []Definition{
		{Name: "a", Settings: vnet.DefaultSettings("a")}, {Name: "a-b", Settings: plain}, {Name: "lab", Settings: lab}}
	if diff := cmp.Diff(want, definitions(t, s), equalSettings, equalAddresses); diff != "" {
		t.Errorf("definitions (-want +got):\n%s", diff)
	}
	dir := filepath.Join(l.ConfigDir, "networks")
	if got, want := fileNames(t, dir), []string{"a-b.toml", "a.toml", "lab.toml"}; !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
	info, err := os.Stat(filepath.Join(dir, "lab.toml"))
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v (%v), want -rw-r--r--", info.Mode(), err)
	}
	for range 2 { // the second time it is absent
		if err := s.Delete("lab"); err != nil {
			t.Error(err)
		}
	}
	if got := names(definitions(t, s)); !slices.Equal(got, []string{"a", "a-b"}) {
		t.Errorf("after Delete: %v", got)
	}
}

func TestSaveRefusesWhatNoNetworkCanHave(t *testing.T) {
	l := newLab(t)
	s := l.open(t)
	if err := s.Save("lab", vnet.DefaultSettings("lab")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.ConfigDir, "networks", "lab.toml")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(*vnet.Settings){
		"bridge with a newline": func(s *vnet.Settings) { s.Bridge = "gway0\nmtu" },
		"uplink with a quote":   func(s *vnet.Settings) { s.Uplink = `a"` },
		"public subnet":         func(s *vnet.Settings) { s.IPv4Subnet = netip.MustParsePrefix("8.8.8.0/24") },
		"no domain":             func(s *vnet.Settings) { s.Domain = "" },
		"small MTU":             func(s *vnet.Settings) { s.MTU = 576 },
		"long prefix":           func(s *vnet.Settings) { s.IPv6Prefix = netip.MustParsePrefix("2001:db8::/65") },
		"zero value":            func(s *vnet.Settings) { *s = vnet.Settings{} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			settings := vnet.DefaultSettings("lab")
			change(&settings)
			err := s.Save("lab", settings)
			var e *vnet.Error
			if !errors.As(err, &e) || e.Key == "" {
				t.Errorf("error %v, want a *vnet.Error with a key", err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Errorf("the file changed to\n%s", after)
			}
		})
	}
	for _, name := range []string{"", "../x", "a/b", "BAD NAME", ".x", "-x", "a.b", "a\x00", strings.Repeat("a", 33)} {
		if err := s.Save(name, vnet.DefaultSettings("x")); vnet.KindOf(err) != vnet.InvalidSetting {
			t.Errorf("Save(%q): %v, want InvalidSetting", name, err)
		}
		if err := s.Delete(name); vnet.KindOf(err) != vnet.InvalidSetting {
			t.Errorf("Delete(%q): %v, want InvalidSetting", name, err)
		}
	}
	if got := fileNames(t, l.ConfigDir); !slices.Equal(got, []string{"networks"}) {
		t.Errorf("files beside networks: %v", got)
	}
}

func TestStrangeFilesAmongTheDefinitions(t *testing.T) {
	l := newLab(t)
	s := l.open(t)
	for _, name := range []string{"good.toml", "BAD NAME.toml", "UPPER.toml", ".hidden.toml", "good.toml~", "notes.txt"} {
		l.write(t, name, "autostart = false\n")
	}
	dir := filepath.Join(l.ConfigDir, "networks")
	l.write(t, "huge.toml", "#"+strings.Repeat("x", maxFile))
	l.write(t, "nul.toml", "bridge = \"a\x00b\"\n")
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "folder.toml"), 0o755),
		syscall.Mkfifo(filepath.Join(dir, "fifo.toml"), 0o644),
		os.Symlink("good.toml", filepath.Join(dir, "link.toml")),
		os.Symlink("absent", filepath.Join(dir, "dangling.toml")),
		os.Symlink("loop.toml", filepath.Join(dir, "loop.toml")),
		os.Symlink("/dev/zero", filepath.Join(dir, "device.toml")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"good": "", "link": "",
		"huge":   "is larger than 1048576 bytes",
		"nul":    "line 1",
		"folder": "is not a regular file", "fifo": "is not a regular file", "device": "is not a regular file",
		"dangling": "no such file", "loop": "too many levels of symbolic links",
	}
	for range 2 { // the log names each bad name once
		got := map[string]string{}
		for _, d := range definitions(t, s) {
			got[d.Name] = ""
			switch {
			case d.Problem == nil && d.Settings.Autostart:
				t.Errorf("%s: autostart is true, want the file's false", d.Name)
			case d.Problem != nil:
				got[d.Name] = d.Problem.Error()
				if !strings.Contains(got[d.Name], filepath.Join(dir, d.Name+".toml")) {
					t.Errorf("%s: problem %q doesn't name the file", d.Name, d.Problem)
				}
				if diff := cmp.Diff(vnet.DefaultSettings(d.Name), d.Settings, equalSettings); diff != "" {
					t.Errorf("%s: settings with a problem aren't the defaults:\n%s", d.Name, diff)
				}
			}
		}
		for name, text := range want {
			if problem, ok := got[name]; !ok || !strings.Contains(problem, text) || text == "" && problem != "" {
				t.Errorf("%s: defined %v, problem %q; want one with %q", name, ok, problem, text)
			}
			delete(got, name)
		}
		if len(got) > 0 {
			t.Errorf("defined, too: %v", got)
		}
	}
	for _, name := range []string{"BAD NAME.toml", "UPPER.toml"} {
		if n := strings.Count(l.log.String(), name); n != 1 {
			t.Errorf("%q is %d times in the log, want once:\n%s", name, n, l.log.String())
		}
	}
	if strings.Contains(l.log.String(), "hidden") || strings.Contains(l.log.String(), "notes") {
		t.Errorf("files that aren't ours are in the log:\n%s", l.log.String())
	}
}
