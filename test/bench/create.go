package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

// create defines networks up to the number asked for; a call returns when the network's DHCP
// and DNS serve, which is checked by asking each.
func create(ctx context.Context, c config) error {
	took := &series{name: "CreateNetwork until DHCP and DNS serve, 2nd and later", unit: "ms", goal: "≤ 60"}
	p, err := raise(ctx, c.options(), false)
	if err != nil {
		return err
	}
	defer p.Close()
	for i := 1; i < c.networks; i++ {
		begun := time.Now()
		var path godbus.ObjectPath
		if err := p.call(ctx, root, "Manager.CreateNetwork", fmt.Sprintf("net%d", i), map[string]godbus.Variant{}).Store(&path); err != nil {
			return err
		}
		took.addMS(time.Since(begun))
		if err := p.serves(ctx, path, fmt.Sprintf("net%d", i)); err != nil {
			return err
		}
	}
	pid, err := p.Daemon().PID(ctx)
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Create: the 2nd to the %dth network", c.networks), took)
	rss, pss, err := memory(pid)
	if err != nil {
		return err
	}
	fmt.Printf("\nMemory with %d networks (libvirt 9.0 with 50: RSS 196 MiB, PSS 48 MiB)\n", c.networks)
	fmt.Printf("  %-30s RSS %6.1f MiB  PSS %6.1f MiB\n", "gangwayd", rss, pss)
	servers, all, share := 0, rss, pss
	for _, pid := range children(p.Laptop, "dnsmasq") {
		if r, s, err := memory(pid); err == nil {
			servers, all, share = servers+1, all+r, share+s
		}
	}
	fmt.Printf("  %-30s RSS %6.1f MiB  PSS %6.1f MiB\n", fmt.Sprintf("with its %d dnsmasq", servers), all, share)
	return nil
}

// serves asks the network's own server for the gateway's name.
func (p *laptop) serves(ctx context.Context, path godbus.ObjectPath, name string) error {
	v, err := p.bus.Object(busName, path).GetProperty(busName + ".Network.Address")
	if err != nil {
		return err
	}
	text, _ := v.Value().(string)
	address, err := netip.ParsePrefix(text)
	if err != nil {
		return fmt.Errorf("network %s has the address %q: %w", name, text, err)
	}
	a, err := p.Laptop.Query(ctx, netip.AddrPortFrom(address.Addr(), 53), "gateway."+name+".internal", lab.TypeA)
	if err != nil || len(a.Addrs) != 1 || a.Addrs[0] != address.Addr() {
		return fmt.Errorf("network %s's DNS answered %v, %v", name, a, err)
	}
	return nil
}

// children lists the processes of that name in the host's network namespace.
func children(h *lab.Host, name string) []int {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil
	}
	var inside string
	h.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	if inside == "" || inside == own {
		return nil
	}
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		comm, _ := os.ReadFile(dir + "/comm")
		ns, _ := os.Readlink(dir + "/ns/net")
		var pid int
		if strings.TrimSpace(string(comm)) == name && ns == inside {
			fmt.Sscanf(filepath.Base(dir), "%d", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}
