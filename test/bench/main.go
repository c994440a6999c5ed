// Bench measures what Gangway promises, with a real NetworkManager, bus, dnsmasq and
// kernel in network namespaces: what guests and host lose when the uplink changes, side by
// side in the same run, and what the daemon costs.
//
// Machines are noisy: compare medians, and the columns of one run with each other. Nothing
// here fails because of a slow machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"gangway/test/lab"
)

// config is how to measure.
type config struct {
	daemon, data string
	runs         int
	networks     int
	silence      time.Duration
	debug        bool
}

type experiment struct {
	name string
	run  func(context.Context, config) error
}

var experiments = []experiment{
	{"unplug", unplug}, {"dockin", dockIn}, {"roam", roam}, {"clash", clash},
	{"create", create}, {"pass", pass}, {"life", life},
	{"switch6", switch6}, {"pull6", unplug6}, {"share", share}, {"throughput6", throughput6},
	{"proxy-answer", proxyAnswer}, {"proxy-switch6", proxySwitch6}, {"proxy-pull6", proxyPull6}, {"proxy-idle", proxyIdle},
	{"proxy-many", proxyMany}, {"proxy-throughput", proxyThroughput},
	{"vpn-leak", vpnLeak}, {"nat66-recover", nat66Recover},
}

func names() (list []string) {
	for _, e := range experiments {
		list = append(list, e.name)
	}
	return list
}

func main() {
	c := config{}
	flag.StringVar(&c.daemon, "gangwayd", "bin/gangwayd", "the daemon's `path`")
	flag.StringVar(&c.data, "data", "data", "the `directory` with bus and polkit policies")
	flag.IntVar(&c.runs, "n", 10, "runs of each experiment")
	flag.DurationVar(&c.silence, "silence", 125*time.Second, "how long guests are silent in proxy-idle")
	flag.IntVar(&c.networks, "networks", 50, "networks to create")
	flag.BoolVar(&c.debug, "debug", false, "have the daemon log in detail, and print its log at the end of each lab")
	only := flag.String("run", "", "experiments whose name matches this `regexp`; all by default: "+strings.Join(names(), " "))
	flag.Parse()
	which, err := regexp.Compile(*only)
	if err == nil {
		c.data, err = filepath.Abs(c.data)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed := false
	for _, e := range experiments {
		if !which.MatchString(e.name) || ctx.Err() != nil {
			continue
		}
		begun := time.Now()
		if err := e.run(ctx, c); err != nil { // the others say something all the same
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", e.name, err)
			failed = true
		}
		fmt.Fprintf(os.Stderr, "(%s took %.0f s)\n", e.name, time.Since(begun).Seconds())
	}
	if failed {
		stop()
		os.Exit(1)
	}
}

func (c config) options() lab.Options {
	var args []string
	if c.debug {
		args = []string{"-debug"}
	}
	return lab.Options{GangwaydArgs: args, Gangwayd: c.daemon, BusPolicyDir: c.data, PolkitActionDir: c.data, NMUnmanaged: "interface-name:gway*"}
}
