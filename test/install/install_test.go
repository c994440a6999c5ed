package install

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// output runs a program and returns what it printed; it must succeed.
func output(t *testing.T, args ...string) string {
	t.Helper()
	b, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, b)
	}
	return string(b)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tree lists the files below a directory with their modes.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		list = append(list, info.Mode().String()+" "+strings.TrimPrefix(path, dir+"/"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	source, build, prefix, dest := "../..", filepath.Join(dir, "build"), filepath.Join(dir, "usr"), filepath.Join(dir, "dest")
	output(t, "meson", "setup", build, source, "--prefix="+prefix, "--libexecdir=libexec")
	output(t, "meson", "compile", "-C", build)
	output(t, "meson", "install", "-C", build, "--no-rebuild", "--destdir", dest)
	if _, err := os.Stat(prefix); err == nil {
		t.Errorf("an installation with a DESTDIR wrote to the prefix %s", prefix)
	}
	output(t, "meson", "install", "-C", build, "--no-rebuild")

	want := strings.Fields(strings.ReplaceAll(read(t, "testdata/files"), " ", "\x00"))
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], "\x00", " ")
	}
	for _, root := range []string{prefix, dest + prefix} {
		if diff := cmp.Diff(want, tree(t, root)); diff != "" {
			t.Errorf("files (-testdata/files +installed):\n%s", diff)
		}
	}
	in := func(path string) string { return filepath.Join(prefix, path) }
	daemon := in("libexec/gangwayd")

	version := regexp.MustCompile(`(?m)^  version: '(.*)'`).FindStringSubmatch(read(t, source+"/meson.build"))
	if got, want := output(t, daemon, "--version"), "gangwayd "+version[1]+"\n"; got != want {
		t.Errorf("version %q, want %q", got, want)
	}
	if !strings.Contains(read(t, daemon), in("share/gangway")) {
		t.Errorf("the daemon doesn't know its data directory %s", in("share/gangway"))
	}
	// Told by its exit code and, of keys that it doesn't know, in words alone.
	if said := output(t, "systemd-analyze", "verify", "--recursive-errors=no", "--man=no", in("lib/systemd/system/gangway.service")); said != "" {
		t.Errorf("systemd says of the unit:\n%s", said)
	}
	wantActivation := "[D-BUS Service]\nName=org.gangway.Gangway1\nExec=" + daemon + "\nUser=root\nSystemdService=gangway.service\n"
	if diff := cmp.Diff(wantActivation, read(t, in("share/dbus-1/system-services/org.gangway.Gangway1.service"))); diff != "" {
		t.Errorf("activation file:\n%s", diff)
	}
	for _, path := range tree(t, in("share")) {
		_, path, _ = strings.Cut(path, " ")
		switch filepath.Ext(path) {
		case ".xml", ".conf":
			output(t, "xmllint", "--noout", "--nonet", in("share/"+path))
		case ".policy":
			output(t, "xmllint", "--noout", "--nonet", "--dtdvalid", "/usr/share/polkit-1/policyconfig-1.dtd", in("share/"+path))
		}
	}
}
