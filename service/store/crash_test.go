package store

import (
	"bufio"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// crashDir names the environment variable that makes this test binary a victim.
const crashDir = "GANGWAY_STORE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

// crashSettings are two definitions of different length: a mix of both would show.
func crashSettings() [2]vnet.Settings {
	short, long := vnet.DefaultSettings("lab"), vnet.DefaultSettings("lab")
	for i := range 200 {
		mac := []byte("52:54:00:00:00:00")
		copy(mac[12:], []byte{"0123456789abcdef"[i/16%16], "0123456789abcdef"[i%16]})
		long.DHCPHosts = append(long.DHCPHosts, vnet.DHCPHost{MAC: string(mac), Hostname: "guest-" + string(mac[12:14])})
	}
	return [2]vnet.Settings{short, long}
}

func crashOptions(dir string) Options {
	return Options{ConfigDir: filepath.Join(dir, "etc"), StateDir: filepath.Join(dir, "var"), RuntimeDir: filepath.Join(dir, "run")}
}

func writeForEver(dir string) {
	s, err := Open(crashOptions(dir))
	if err != nil {
		panic(err)
	}
	settings := crashSettings()
	for i := 0; ; i++ {
		err := s.Save("lab", settings[i%2])
		o := s.Apply(context.Background(), []plan.Op{plan.RememberUplinkPrefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}})
		if err := errors.Join(err, o[0].Err); err != nil {
			panic(err)
		}
		if i == 2 {
			os.Stdout.WriteString("writing\n")
		}
	}
}

// A process that is killed while it writes, at whatever point, leaves whole files, and its
// temporary ones are gone with the next start.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	settings := crashSettings()
	leftovers := 0
	for round := range 25 {
		victim := exec.Command("/proc/self/exe")
		victim.Env = append(os.Environ(), crashDir+"="+dir)
		victim.Stderr = os.Stderr
		out, err := victim.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatalf("the victim said %q: %v", line, err)
		}
		// Not for luck: another moment of the victim's loop each round.
		time.Sleep(time.Duration(round*137) * time.Microsecond)
		if err := victim.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		victim.Wait()

		for _, name := range append(fileNames(t, filepath.Join(dir, "etc/networks")), fileNames(t, filepath.Join(dir, "var"))...) {
			if strings.HasSuffix(name, temporarySuffix) {
				leftovers++
			}
		}
		s, err := Open(crashOptions(dir))
		if err != nil {
			t.Fatal(err)
		}
		list := definitions(t, s)
		if len(list) != 1 || list[0].Problem != nil ||
			!reflect.DeepEqual(list[0].Settings, settings[0]) && !reflect.DeepEqual(list[0].Settings, settings[1]) {
			t.Fatalf("round %d: definitions %+v", round, list)
		}
		if len(s.Memory().UplinkPrefixes) == 0 {
			t.Fatalf("round %d: the memory is lost", round)
		}
		for _, sub := range []string{"etc/networks", "var"} {
			for _, name := range fileNames(t, filepath.Join(dir, sub)) {
				if name != "lab.toml" && name != "memory.json" && name != "seed" {
					t.Errorf("round %d: %s is left in %s", round, name, sub)
				}
			}
		}
	}
	t.Logf("%d temporary files were left and removed", leftovers)
}

func TestOpenRemovesTemporaryFilesOnly(t *testing.T) {
	l := newLab(t)
	l.write(t, "lab.toml", "")
	l.write(t, ".gangway-123.tmp", "autostart = fal")
	l.write(t, ".gangway-notes", "a person's")
	l.write(t, "x.tmp", "a person's")
	l.open(t)
	got := strings.Join(fileNames(t, filepath.Join(l.ConfigDir, "networks")), " ")
	if want := ".gangway-notes lab.toml x.tmp"; got != want {
		t.Errorf("files %q, want %q", got, want)
	}
}

// inTmpfs runs f with a small file system of its own on dir, seen by f's thread alone and
// gone with it. It needs root.
func inTmpfs(t *testing.T, dir, size string, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := syscall.Unshare(syscall.CLONE_NEWNS)
		if err == nil {
			err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		}
		if err == nil {
			err = syscall.Mount("gangway-test", dir, "tmpfs", 0, "size="+size+",mode=755")
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("cannot mount a file system for the test (are you root?): %v", err)
	}
}

func TestWriteThatFailsLeavesTheOldFiles(t *testing.T) {
	old, next := crashSettings()[0], crashSettings()[1]
	fill := func(dir string) error {
		f, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			return err
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		return nil
	}
	freeze := func(dir string) error {
		return syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	}
	for name, test := range map[string]struct {
		breakIt func(string) error
		want    error
	}{"full disk": {fill, syscall.ENOSPC}, "read-only": {freeze, syscall.EROFS}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			inTmpfs(t, dir, "128k", func() {
				s, err := Open(crashOptions(dir))
				if err != nil {
					t.Error(err)
					return
				}
				runtimeState := Runtime{Started: map[string]bool{"lab": true}}
				if err := errors.Join(s.Save("lab", old), s.SetRuntime(runtimeState)); err != nil {
					t.Error(err)
				}
				apply(t, s, plan.RememberSubnet{Network: "lab", Subnet: subnet})
				if err := test.breakIt(dir); err != nil {
					t.Error(err)
				}

				outcomes := s.Apply(context.Background(), []plan.Op{
					plan.RememberSubnet{Network: "lab", Subnet: netip.MustParsePrefix("10.0.0.0/24")},
					plan.RememberSubnet{Network: "lab", Subnet: netip.MustParsePrefix("10.0.0.0/24")}})
				for what, err := range map[string]error{
					"Save":         s.Save("lab", next),
					"Save another": s.Save("other", next),
					"Apply":        outcomes[0].Err,
					"ForgetSubnet": s.ForgetSubnet("lab"),
					"SetRuntime":   s.SetRuntime(Runtime{}),
				} {
					if !errors.Is(err, test.want) {
						t.Errorf("%s: %v, want %v", what, err, test.want)
					}
				}
				again, err := Open(crashOptions(dir))
				if err != nil {
					t.Error(err)
					return
				}
				for _, s := range []*Store{s, again} {
					list, err := s.Definitions() // not t.Fatal: this is not the test's goroutine
					if err != nil || len(list) != 1 || list[0].Problem != nil || !reflect.DeepEqual(list[0].Settings, old) {
						t.Errorf("definitions %+v, want the old", list)
					}
					if s.Memory().Subnets["lab"] != subnet || !s.Runtime().Started["lab"] {
						t.Errorf("memory %+v, runtime %+v, want the old", s.Memory(), s.Runtime())
					}
				}
				for _, sub := range []string{"etc/networks", "var", "run"} {
					if names, err := filepath.Glob(filepath.Join(dir, sub, ".*")); err != nil || len(names) > 0 {
						t.Errorf("left over: %v (%v)", names, err)
					}
				}
			})
			if names := fileNames(t, dir); len(names) > 0 {
				t.Errorf("the test's file system was not its own: %v", names)
			}
		})
	}
}
