package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// life measures what the daemon costs: its start, its memory, and its rest.
func life(ctx context.Context, c config) error {
	first := &series{name: "activation by the bus to the first reply, clean machine", unit: "ms", goal: "≤ 100"}
	again := &series{name: "the same after SIGKILL, network in place", unit: "ms", goal: "≤ 100"}
	for range c.runs {
		p, err := raise(ctx, c.options(), true)
		if err != nil {
			return err
		}
		err = func() error {
			if err := p.activate(ctx, first); err != nil {
				return err
			}
			if err := p.waitProperty(ctx, "/org/gangway/Gangway1/network/default", "Network.State", func(v any) bool { return v == "active" }); err != nil {
				return err
			}
			if err := p.Daemon().Kill(ctx, unix.SIGKILL); err != nil {
				return err
			}
			return p.activate(ctx, again)
		}()
		p.Close()
		if err != nil {
			return err
		}
	}
	table("Activation", first, again)
	return rest(ctx, c)
}

func (p *laptop) activate(ctx context.Context, s *series) error {
	begun := time.Now()
	var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	if err := p.bus.Object(busName, root).CallWithContext(ctx, "org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Store(&objects); err != nil {
		return err
	}
	s.addMS(time.Since(begun))
	return nil
}

// rest looks at an idle minute of a daemon with one network and one guest.
func rest(ctx context.Context, c config) error {
	p, err := raise(ctx, c.options(), false)
	if err != nil {
		return err
	}
	defer p.Close()
	if c.debug {
		defer p.DumpLogs(os.Stderr, 1<<20)
	}
	pid, err := p.Daemon().PID(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	before, cpu := switches(pid)
	if err := pause(ctx, time.Minute); err != nil {
		return err
	}
	after, cpuAfter := switches(pid)
	rss, pss, err := memory(pid)
	if err != nil {
		return err
	}
	fmt.Printf("\nAn idle minute with one network and one guest\n  wake-ups (voluntary context switches of all threads) %d, CPU %d ms\n  resident memory of gangwayd %.1f MiB, PSS %.1f MiB (goal ≤ 20)\n",
		after-before, (cpuAfter-cpu)*10, rss, pss)
	return nil
}

// switches adds up the voluntary context switches of a process's threads, and its CPU time in ticks.
func switches(pid int) (count, ticks int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, line := range strings.Split(string(b), "\n") {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(v))
				count += n
			}
		}
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(fields) > 13 {
		u, _ := strconv.Atoi(fields[11])
		s, _ := strconv.Atoi(fields[12])
		ticks = u + s
	}
	return count, ticks
}
