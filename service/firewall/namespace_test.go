package firewall

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// inNamespaceVariable tells the test binary that it was started by itself.
const inNamespaceVariable = "GANGWAY_FIREWALL_TEST_NAMESPACE"

// TestMain runs the tests in a process whose network namespace is its own and nameless: it
// goes with the process, however that ends. This takes root.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespaceVariable) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inNamespaceVariable+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread() // Pdeathsig is about the thread
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() > 0 {
			os.Exit(exit.ExitCode())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "cannot run the tests in a network namespace (this takes root):", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// namespace is a network namespace that lives as long as the test.
type namespace struct {
	t    testing.TB
	name string // for messages
	file *os.File
}

// newNamespace makes a network namespace with lo up.
func newNamespace(t testing.TB, name string) *namespace {
	t.Helper()
	n := &namespace{t: t, name: name}
	onOwnThread(func() {
		must(t, unix.Unshare(unix.CLONE_NEWNET))
		var err error
		n.file, err = os.Open("/proc/thread-self/ns/net")
		must(t, err)
	})
	t.Cleanup(func() { n.file.Close() })
	n.run("ip", "link", "set", "lo", "up")
	return n
}

// onOwnThread calls f on a thread that ends with it.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread isn't used again
		f()
	}()
	<-done
}

// do calls f with the thread in the namespace.
func (n *namespace) do(f func()) {
	onOwnThread(func() {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		f()
	})
}

// enter moves the test's goroutine into the namespace for the rest of the test.
func (n *namespace) enter() {
	n.t.Helper()
	runtime.LockOSThread()
	must(n.t, unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET))
}

// try runs a program in the namespace.
func (n *namespace) try(args ...string) (string, error) {
	var out []byte
	var err error
	n.do(func() { out, err = exec.Command(args[0], args[1:]...).CombinedOutput() })
	if err != nil {
		err = fmt.Errorf("in %s: %s: %w: %s", n.name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// run runs a program in the namespace that must succeed.
func (n *namespace) run(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	must(n.t, err)
	return out
}

// sh runs several commands, one a line.
func (n *namespace) sh(script string, args ...any) string {
	n.t.Helper()
	return n.run("sh", "-ec", fmt.Sprintf(script, args...))
}

// wire connects two namespaces by a veth, both ends up.
func wire(a *namespace, aName string, b *namespace, bName string) {
	a.t.Helper()
	peer := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.file.Fd())
	a.sh("ip link add %s type veth peer name %s netns %s; ip link set %s up", aName, bName, peer, aName)
	b.run("ip", "link", "set", bName, "up")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
