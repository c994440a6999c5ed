package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is one machine of the lab: a network namespace, and for the laptop and guests a mount namespace.
// Its methods may be called from any goroutine until the lab is closed.
type Host struct {
	// Name is the host's name in the lab: "laptop", "internet", "router-a", "guest-x".
	Name string
	// Namespace is the name that `ip netns exec` takes.
	Namespace string

	net, mnt *os.File
	nl       *netlink.Handle
	env      []string

	mu      sync.Mutex
	closers []func()
}

// newHost makes the namespace and brings its loopback up.
func (l *Lab) newHost(name string) (*Host, error) {
	h := &Host{Name: name, Namespace: l.prefix + "-" + name, env: l.env}
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	var err error
	if h.net, err = newNetNS(h.Namespace); err != nil {
		return nil, err
	}
	if h.nl, err = netlink.NewHandleAt(netns.NsHandle(h.net.Fd()), unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("cannot open netlink of host %q: %w", name, err)
	}
	if err := h.setUp("lo"); err != nil {
		return nil, err
	}
	return h, nil
}

// onClose has f called when the lab is closed, before the namespace goes.
func (h *Host) onClose(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closers = append(h.closers, f)
}

func (h *Host) close() error {
	h.mu.Lock()
	closers := h.closers
	h.closers = nil
	h.mu.Unlock()
	for _, f := range closers {
		f()
	}
	if h.nl != nil {
		h.nl.Close()
	}
	for _, f := range []*os.File{h.mnt, h.net} {
		if f != nil {
			f.Close()
		}
	}
	return deleteNetNS(h.Namespace)
}

// dropHost deletes a host on which nothing runs any more.
func (l *Lab) dropHost(h *Host) error {
	l.mu.Lock()
	l.hosts = slices.DeleteFunc(slices.Clone(l.hosts), func(other *Host) bool { return other == h })
	l.mu.Unlock()
	return h.close()
}

// Netlink returns a handle whose sockets live in the host's namespace; the lab closes it.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

// Start starts a prepared command in the host's namespaces, with the lab's environment if cmd.Env is nil.
// Do not set Pdeathsig: the thread that starts the command ends at once.
func (h *Host) Start(cmd *exec.Cmd) error {
	if cmd.Env == nil {
		cmd.Env = h.env
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // Ctrl-C is the caller's to handle: it closes the lab in order
	return onThread(func() error {
		if err := enter(h.net, h.mnt); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// Run runs a program to its end and returns its standard output. The error of a program that
// failed quotes its standard error and wraps an *exec.ExitError.
func (h *Host) Run(ctx context.Context, args ...string) (string, error) {
	return h.RunInput(ctx, "", args...)
}

// RunInput is Run with a text on standard input.
func (h *Host) RunInput(ctx context.Context, stdin string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := h.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return stdout.String(), fmt.Errorf("cannot run %q on %q: %w: %s", strings.Join(args, " "), h.Name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Do runs f on a thread of its own within the host's network (not mount) namespace. What f leaves open,
// sockets above all, stays in that namespace. Goroutines that f starts do not inherit it.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := enter(h.net, nil); err != nil {
			return err
		}
		return f()
	})
}

// Sysctl writes a kernel setting of the host's network namespace: Sysctl("net.ipv4.ip_forward", "1").
func (h *Host) Sysctl(key, value string) error {
	err := h.Do(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0)
	})
	if err != nil {
		return fmt.Errorf("cannot set %q on %q: %w", key, h.Name, err)
	}
	return nil
}

// sysctls sets many at once.
func (h *Host) sysctls(settings map[string]string) error {
	return h.Do(func() error {
		for key, value := range settings {
			if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0); err != nil {
				return fmt.Errorf("cannot set %q on %q: %w", key, h.Name, err)
			}
		}
		return nil
	})
}

func (h *Host) setUp(ifname string) error {
	return h.editLink(ifname, h.nl.LinkSetUp)
}

func (h *Host) waitOperUp(ctx context.Context, ifname string) error {
	err := poll(ctx, func() (bool, error) {
		link, err := h.nl.LinkByName(ifname)
		return err == nil && link.Attrs().OperState == netlink.OperUp, err
	})
	if err != nil {
		return fmt.Errorf("cannot see interface %q of %q come up: %w", ifname, h.Name, err)
	}
	return nil
}

func (h *Host) editLink(ifname string, edit func(netlink.Link) error) error {
	link, err := h.nl.LinkByName(ifname)
	if err == nil {
		err = edit(link)
	}
	if err != nil {
		return fmt.Errorf("cannot change interface %q on %q: %w", ifname, h.Name, err)
	}
	return nil
}

// Addresses lists the usable addresses of an interface: neither tentative nor failed nor deprecated.
func (h *Host) Addresses(ifname string) ([]netip.Prefix, error) {
	link, err := h.nl.LinkByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("cannot find interface %q on %q: %w", ifname, h.Name, err)
	}
	var addrs []netlink.Addr
	for range 10 { // a dump that a change interrupted has to be taken again
		if addrs, err = h.nl.AddrList(link, netlink.FAMILY_ALL); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list addresses of %q on %q: %w", ifname, h.Name, err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED|unix.IFA_F_DEPRECATED) != 0 {
			continue
		}
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			bits, _ := a.Mask.Size()
			out = append(out, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return out, nil
}

// WaitAddress waits until the interface has a usable address that lies within the prefix, and returns it.
func (h *Host) WaitAddress(ctx context.Context, ifname string, within netip.Prefix) (netip.Addr, error) {
	var found netip.Addr
	err := poll(ctx, func() (bool, error) {
		have, err := h.Addresses(ifname)
		for _, p := range have {
			if within.Contains(p.Addr()) {
				found = p.Addr()
			}
		}
		return found.IsValid(), err
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot see address of %s on %q of %q: %w", within, ifname, h.Name, err)
	}
	return found, nil
}

func (h *Host) addAddress(ifname string, p netip.Prefix) error {
	return h.editLink(ifname, func(link netlink.Link) error {
		ipnet := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		addr := &netlink.Addr{IPNet: ipnet}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		return h.nl.AddrAdd(link, addr)
	})
}

func (h *Host) addRoute(dst netip.Prefix, via netip.Addr) error {
	ipnet := &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())}
	if err := h.nl.RouteAdd(&netlink.Route{Dst: ipnet, Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("cannot add route %q via %q on %q: %w", dst, via, h.Name, err)
	}
	return nil
}
