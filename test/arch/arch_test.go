package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "gangway"

// pkg is what "go list -json" says of a package.
type pkg struct {
	ImportPath   string
	Dir          string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Error        *struct{ Err string }
}

// local is the import path below the module's, such as "service/plan".
func (p pkg) local() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

// list runs go list in the module's root.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json"}, args...)...)
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var packages []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// rule says which of the module's packages others may import, and what else they may not.
type rule struct {
	// ours are the module's packages that may be imported; a trailing /... means those below.
	ours []string
	// outside tells whether packages of other modules may be imported.
	outside bool
	// not lists what may not be imported; a trailing /... means those below, too.
	not []string
}

// inputOutput is the standard library's part that reaches out of the process.
var inputOutput = []string{"os", "os/...", "syscall", "net/http", "net/http/...", "net/rpc", "net/rpc/...", "net/smtp", "io/fs", "io/ioutil", "log", "log/...", "plugin", "database/...", "unsafe"}

// rules has one rule for each package, by the longest prefix. "cmd" may import everything.
var rules = map[string]rule{
	"service/vnet":        {not: inputOutput},
	"service/plan":        {ours: []string{"service/vnet"}, not: append([]string{"net", "math/rand", "math/rand/...", "crypto/rand", "context", "sync", "sync/..."}, inputOutput...)},
	"service/store":       {ours: []string{"service/vnet", "service/plan"}, outside: true, not: []string{"os/exec"}},
	"service":             {ours: []string{"service/vnet", "service/plan", "service/store"}, not: []string{"os", "os/...", "net", "syscall"}},
	"service/uplink":      {ours: []string{"service/vnet", "service/plan"}, outside: true},
	"service/link":        {ours: []string{"service/vnet", "service/plan"}, outside: true, not: []string{"os/exec"}},
	"service/firewall":    {ours: []string{"service/vnet", "service/plan"}, outside: true},
	"service/ndp":         {ours: []string{"service/vnet", "service/plan", "service/ndp/message"}, outside: true, not: []string{"os/exec"}},
	"service/ndp/message": {not: inputOutput},
	"service/gate":        {ours: []string{"service/vnet", "service/plan"}, outside: true},
	"service/dnsmasq":     {ours: []string{"service/vnet", "service/plan"}, outside: true},
	"service/servicetest": {ours: []string{"service", "service/vnet", "service/plan", "service/store"}, not: []string{"os", "os/...", "net"}},
	"dbus":                {ours: []string{"service", "service/vnet", "policy", "data"}, outside: true, not: []string{"os/exec"}},
	"policy":              {ours: []string{"data"}, outside: true, not: []string{"os/exec"}},
	"data":                {},
	"cmd":                 {ours: []string{"..."}, outside: true},
	"test":                {ours: []string{"..."}, outside: true},
}

func (r rule) violation(imported string, standard bool) string {
	switch local, ours := strings.CutPrefix(imported, module+"/"); {
	case matches(r.not, imported):
		return "may not import " + imported
	case ours && !matches(r.ours, local):
		return "may not import our " + local
	case !ours && !standard && !r.outside:
		return "may only import the standard library and ours, not " + imported
	}
	return ""
}

func matches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		below, all := strings.CutSuffix(p, "...")
		return p == path || all && strings.HasPrefix(path, below)
	})
}

func ruleFor(path string) (rule, bool) {
	for ; path != "."; path = filepath.Dir(path) {
		if r, ok := rules[path]; ok {
			return r, true
		}
	}
	return rule{}, false
}

// A package whose path has no dot in its first element is the standard library's.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && first != module
}

func TestImports(t *testing.T) {
	packages := list(t, "./...")
	if len(packages) < 8 {
		t.Fatalf("only %d packages", len(packages))
	}
	for _, p := range packages {
		if p.Error != nil && len(p.GoFiles) > 0 {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
		r, ok := ruleFor(p.local())
		if !ok {
			t.Errorf("%s has no rule: say here what it may import", p.ImportPath)
		}
		for _, imported := range p.Imports {
			if v := r.violation(imported, standard(imported)); v != "" {
				t.Errorf("%s %s", p.local(), v)
			}
			if !strings.HasPrefix(p.local(), "test/") && strings.HasPrefix(imported, module+"/test/") || imported == module+"/service/servicetest" {
				t.Errorf("%s imports %s, which is for tests alone", p.local(), imported)
			}
		}
	}
}

// The rules themselves are tried on what they are to find.
func TestRulesFindViolations(t *testing.T) {
	tests := []struct {
		from, to string
		ok       bool
	}{
		{"service", "gangway/dbus", false},
		{"service", "gangway/service/link", false},
		{"service", "github.com/godbus/dbus/v5", false},
		{"service", "gangway/service/plan", true},
		{"service/link", "gangway/service/firewall", false},
		{"service/dnsmasq", "gangway/service/uplink", false},
		{"service/firewall", "gangway/service", false},
		{"service/firewall", "github.com/coreos/go-iptables/iptables", true},
		{"service/firewall/deeper", "gangway/service/link", false},
		{"service/plan", "gangway/service/store", false},
		{"service/plan", "os", false},
		{"service/plan", "os/exec", false},
		{"service/plan", "github.com/vishvananda/netlink", false},
		{"service/plan", "github.com/godbus/dbus/v5", false},
		{"service/plan", "net/netip", true},
		{"service/vnet", "gangway/service/plan", false},
		{"service/vnet", "os", false},
		{"service/vnet", "net/http", false},
		{"service/vnet", "github.com/google/go-cmp/cmp", false},
		{"service/vnet", "net/netip", true},
		{"dbus", "gangway/service/link", false},
		{"policy", "gangway/service", false},
		{"cmd/gangwayd", "gangway/service/link", true},
	}
	for _, test := range tests {
		r, ok := ruleFor(test.from)
		if v := r.violation(test.to, standard(test.to)); !ok || (v == "") != test.ok {
			t.Errorf("%s imports %s: %q, want allowed %v", test.from, test.to, v, test.ok)
		}
	}
}
