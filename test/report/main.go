// Report runs `go test -json`, given as its arguments, and tells of it in few words: a line for
// each package, the output of what failed, a sign of life while nothing ends, and last
// "N passed, N failed, N skipped". It fails if anything failed or was skipped, or if no test ran.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// silence is how long nothing may be printed before a line says what is running.
const silence = 30 * time.Second

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: report go test -json [flags] [packages]")
		os.Exit(2)
	}
	// Ctrl-C reaches the tests, too, which tidy up; their end is ours. (Not signal.Ignore: they
	// would inherit that.)
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		for s := range terminate {
			cmd.Process.Signal(s)
		}
	}()

	r := newReport(os.Stdout, time.Now)
	follow(r, out)
	err = cmd.Wait()
	if !r.finish(err) {
		os.Exit(1)
	}
}

// follow feeds the report with the stream of events until it ends.
func follow(r *report, stream io.Reader) {
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		reader := bufio.NewReader(stream)
		for {
			line, err := reader.ReadBytes('\n')
			if len(line) > 0 {
				lines <- line
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintln(os.Stderr, "report:", err)
				}
				return
			}
		}
	}()
	for {
		quiet := time.NewTimer(silence)
		select {
		case line, ok := <-lines:
			quiet.Stop()
			if !ok {
				return
			}
			var e event
			if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
				r.foreign(string(line))
				continue
			}
			r.take(e)
			r.beat()
		case <-quiet.C:
			r.beat()
		}
	}
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a build's output
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }
