package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"go.uber.org/goleak"
)

const (
	argService = "serve-lab-test" // be a service that the bus activates
	argHold    = "hold-lab"       // start a lab and wait to be killed
	argSignal  = "hold-lab-until-signal"
)

// TestMain lets the test binary play the other parts that a test needs as processes of their own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		var err error
		switch os.Args[1] {
		case argService:
			err = serve()
		case argHold, argSignal:
			err = hold(os.Args[1] == argSignal)
		default:
			os.Exit(run(m))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run(m))
}

// run fails if anything, goroutines included, is left when all labs are closed.
func run(m *testing.M) int {
	code := m.Run()
	err := goleak.Find(goleak.IgnoreAnyFunction("gangway/test/lab.awaitSignal"), goleak.IgnoreAnyFunction("os/signal.loop"))
	if left, gerr := filepath.Glob(filepath.Join(baseDir, "gwl"+strconv.FormatInt(int64(os.Getpid()), 36)+"x*")); gerr != nil || len(left) > 0 {
		err = errors.Join(err, gerr, fmt.Errorf("labs left open: %v", left))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// service answers who it is.
type service struct{}

func (service) Namespaces() (net, mnt string, environ []string, err *godbus.Error) {
	net, nerr := os.Readlink("/proc/self/ns/net")
	mnt, merr := os.Readlink("/proc/self/ns/mnt")
	for _, e := range []error{nerr, merr} {
		if e != nil {
			return "", "", nil, godbus.MakeFailedError(e)
		}
	}
	return net, mnt, os.Environ(), nil
}

// serve owns gangwayd's name, so that the lab can be tested without it.
func serve() error {
	fmt.Fprintln(os.Stderr, "service starts")
	conn, err := godbus.ConnectSystemBus()
	if err != nil {
		return err
	}
	if err := conn.Export(service{}, "/", daemonName); err != nil {
		return err
	}
	if _, err := conn.RequestName(daemonName, godbus.NameFlagDoNotQueue); err != nil {
		return err
	}
	<-conn.Context().Done()
	return nil
}

func hold(untilSignal bool) error {
	if untilSignal {
		CloseOnSignal()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := New(ctx, Options{})
	if err != nil {
		return err
	}
	if _, err := l.AddGuest(ctx, "one"); err != nil {
		return err
	}
	fmt.Println(l.Prefix())
	select {}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}
