package link

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// guest is a network namespace of a process that does nothing.
type guest struct {
	pid    int
	ns     netns.NsHandle
	handle *netlink.Handle
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	idle := exec.Command("sleep", "infinity")
	idle.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // it dies with the thread, that is with the test
	must(t, idle.Start())
	t.Cleanup(func() {
		_ = idle.Process.Kill()
		_ = idle.Wait()
		runtime.UnlockOSThread()
	})
	ns, err := netns.GetFromPid(idle.Process.Pid)
	must(t, err)
	handle, err := netlink.NewHandleAt(ns)
	must(t, err)
	t.Cleanup(func() {
		handle.Close()
		_ = ns.Close()
	})
	return &guest{pid: idle.Process.Pid, ns: ns, handle: handle}
}

func (g *guest) up(t *testing.T, name string) {
	t.Helper()
	l, err := g.handle.LinkByName(name)
	must(t, err)
	must(t, g.handle.LinkSetUp(l))
}

func (g *guest) await(t *testing.T, name string, carrier bool) {
	t.Helper()
	eventually(t, name+"'s carrier", func() bool {
		l, err := g.handle.LinkByName(name)
		must(t, err)
		return l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 == carrier
	})
}

// watch counts, by name, how often a client in the guest is told that a carrier went.
func (g *guest) watch(t *testing.T) func(name string) int {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 100), make(chan struct{})
	must(t, netlink.LinkSubscribeAt(g.ns, updates, done))
	var mu sync.Mutex
	carrier, losses := map[string]bool{}, map[string]int{}
	links, err := g.handle.LinkList()
	must(t, err)
	for _, l := range links {
		carrier[l.Attrs().Name] = l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
	}
	go func() {
		for u := range updates {
			mu.Lock()
			name, now := u.Attrs().Name, u.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
			if carrier[name] && !now {
				losses[name]++
			}
			carrier[name] = now
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { close(done) })
	return func(name string) int {
		mu.Lock()
		defer mu.Unlock()
		return losses[name]
	}
}

// packetSocket is one that sends in the guest.
func (g *guest) packetSocket(t *testing.T) (fd int) {
	t.Helper()
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends in the guest's namespace
		err := netns.Set(g.ns)
		if err == nil {
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		}
		made <- err
	}()
	must(t, <-made)
	return fd
}
