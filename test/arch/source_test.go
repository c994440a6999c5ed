package arch

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// maxLines is the longest source file: more is two files.
const maxLines = 400

// files calls f for each file of the project.
func files(t *testing.T, f func(path string, data []byte)) {
	t.Helper()
	count := 0
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root(t), path)
		if err != nil {
			return err
		}
		count++
		f(filepath.ToSlash(rel), data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count < 50 {
		t.Fatalf("only %d files", count)
	}
}

// goFiles calls f for each Go file of the project, parsed.
func goFiles(t *testing.T, f func(path string, set *token.FileSet, file *ast.File, data []byte)) {
	t.Helper()
	files(t, func(path string, data []byte) {
		if !strings.HasSuffix(path, ".go") || strings.Contains(path, "testdata/") {
			return
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, data, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		f(path, set, file, data)
	})
}

// The project says nothing of where and how it came to be.
func TestNoFileMentionsItsSurroundings(t *testing.T) {
	// Put together here, so that this file has none of them.
	words := []string{"/wor" + "k/", "shared/" + "design"}
	files(t, func(path string, data []byte) {
		if bytes.IndexByte(data, 0) >= 0 { // built here, not ours to write
			return
		}
		for _, word := range words {
			if i := bytes.Index(data, []byte(word)); i >= 0 {
				t.Errorf("%s:%d: mentions %q", path, 1+bytes.Count(data[:i], []byte("\n")), word)
			}
		}
	})
}

func TestSourceFilesAreShort(t *testing.T) {
	goFiles(t, func(path string, _ *token.FileSet, _ *ast.File, data []byte) {
		if n := bytes.Count(data, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, %d at most", path, n, maxLines)
		}
	})
}

// godbus is imported by that name everywhere, so that "dbus." is always ours.
func TestGodbusIsCalledGodbus(t *testing.T) {
	goFiles(t, func(path string, _ *token.FileSet, file *ast.File, _ []byte) {
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if imported == "github.com/godbus/dbus/v5" && (spec.Name == nil || spec.Name.Name != "godbus") {
				t.Errorf("%s imports %s without the name godbus", path, imported)
			}
		}
	})
}

// clock are the functions of package time that know what time it is.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}

// The pure packages use neither the clock nor the network.
func TestPurePackagesAreWithoutClock(t *testing.T) {
	pure := map[string]map[string][]string{ // by package, by import: what isn't used
		"service/plan": {"time": clock},
		"service/vnet": {"time": clock, "net": nil}, // nil: only what is in parsing is
	}
	parsing := []string{"ParseMAC", "HardwareAddr"}
	checked := 0
	goFiles(t, func(path string, set *token.FileSet, file *ast.File, _ []byte) {
		forbidden, ok := pure[filepath.ToSlash(filepath.Dir(path))]
		if !ok || strings.HasSuffix(path, "_test.go") {
			return
		}
		checked++
		names := importNames(file)
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Obj == nil {
				bad, listed := forbidden[names[x.Name]]
				if slices.Contains(bad, s.Sel.Name) || listed && bad == nil && !slices.Contains(parsing, s.Sel.Name) {
					t.Errorf("%s: uses %s.%s", set.Position(s.Pos()), x.Name, s.Sel.Name)
				}
			}
			return true
		})
	})
	if checked < 10 {
		t.Errorf("only %d files checked", checked)
	}
}

// importNames returns the import paths of a file by the names that they have in it.
func importNames(file *ast.File) map[string]string {
	names := map[string]string{}
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		name := path[strings.LastIndex(path, "/")+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = path
	}
	return names
}

// A test that is skipped has tested nothing.
func TestNoTestIsSkipped(t *testing.T) {
	goFiles(t, func(path string, set *token.FileSet, file *ast.File, _ []byte) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if s, ok := call.Fun.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && slices.Contains([]string{"t", "b", "tb"}, x.Name) && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
					t.Errorf("%s: calls %s.%s", set.Position(call.Pos()), x.Name, s.Sel.Name)
				}
			}
			return true
		})
	})
}

// Packages say what they are for, and have names that do.
func TestPackagesAreNamedAndDocumented(t *testing.T) {
	documented := map[string]bool{}
	goFiles(t, func(path string, _ *token.FileSet, file *ast.File, _ []byte) {
		dir := filepath.ToSlash(filepath.Dir(path))
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		documented[dir] = documented[dir] || file.Doc != nil && len(file.Doc.Text()) > 40
		if slices.Contains([]string{"util", "utils", "helper", "helpers", "common", "manager", "misc"}, file.Name.Name) {
			t.Errorf("%s: package %s says nothing by its name", path, file.Name.Name)
		}
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
	if len(documented) < 8 {
		t.Error(fmt.Sprint("only these packages: ", documented))
	}
}
