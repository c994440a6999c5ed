package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// screen prints for a person: colour and live progress on a terminal only.
type screen struct {
	mu    sync.Mutex
	w     io.Writer
	fancy bool
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	return &screen{w: f, fancy: err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""}
}

func (s *screen) paint(code, text string) string {
	if !s.fancy {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func bold(s *screen, t string) string  { return s.paint("1", t) }
func dim(s *screen, t string) string   { return s.paint("2", t) }
func green(s *screen, t string) string { return s.paint("32", t) }
func red(s *screen, t string) string   { return s.paint("31", t) }

func (s *screen) text(lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lines {
		fmt.Fprintln(s.w, l)
	}
}

func (s *screen) title(t string) {
	s.text("", bold(s, t), strings.Repeat("═", utf8.RuneCountInString(t)))
}

func (s *screen) heading(t string) {
	s.text("", bold(s, "── "+t+" "+strings.Repeat("─", max(0, 86-utf8.RuneCountInString(t)))))
}

// step shows what is going on and how long it took.
func (s *screen) step(what string, do func() error) error {
	begun := time.Now()
	if s.fancy {
		fmt.Fprintf(s.w, "  … %s", what)
	}
	err := do()
	mark, start := green(s, "✓"), ""
	if err != nil {
		mark = red(s, "✗")
	}
	if s.fancy {
		start = "\r\x1b[K"
	}
	fmt.Fprintf(s.w, "%s  %s %s %s\n", start, mark, what, dim(s, fmt.Sprintf("(%d ms)", time.Since(begun).Milliseconds())))
	return err
}
