// Gangwayd keeps virtual networks for guests moored to whichever uplink the laptop has.
//
// It is a D-Bus-activated system service and needs no flags in ordinary use. This
// package only reads flags and environment and puts the parts together.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"gangway/service/gate"
)

// version is set by the build.
var version = "0.1.0-dev"

func main() {
	if os.Args[0] == gate.Name {
		watchGate()
		return
	}
	var o options
	flag.StringVar(&o.address, "address", "", "system bus `address` (default: DBUS_SYSTEM_BUS_ADDRESS, else the system's)")
	flag.BoolVar(&o.dryRun, "dry-run", false, "print what would be done now, change nothing, and exit")
	flag.BoolVar(&o.debug, "debug", false, "log in detail")
	flag.DurationVar(&o.idleExit, "idle-exit", defaultIdleExit, "exit after so long without a request while no network runs; 0 = never")
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage: gangwayd [flags]\n\nVirtual networks that follow the laptop's uplink. No flags are needed in ordinary use.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "gangwayd: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	if *showVersion {
		fmt.Println("gangwayd", version)
		return
	}
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	o.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: journalKnowsTime}))
	// The heap is a few MiB: let it be collected early rather than grow to twice that.
	debug.SetGCPercent(50)
	err := run(context.Background(), o)
	switch {
	case errors.Is(err, errReexec):
		err = reexec()
		fallthrough
	case err != nil:
		o.log.Error("gangwayd ends", "error", err)
		os.Exit(1)
	}
}

// journalKnowsTime drops the time where the journal adds its own.
func journalKnowsTime(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 && os.Getenv("JOURNAL_STREAM") != "" {
		return slog.Attr{}
	}
	return a
}

// watchGate is the life of the watchdog, which is this executable by another name.
func watchGate() {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: journalKnowsTime}))
	if err := gate.Main(os.Args[1:], log); err != nil {
		log.Error(err.Error())
		os.Exit(1)
	}
}
