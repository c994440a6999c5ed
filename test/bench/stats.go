package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// series is one figure over several runs.
type series struct {
	name   string
	unit   string
	goal   string // as text, "" for none
	fine   bool   // thousandths matter
	values []float64
}

func (s *series) add(v float64)         { s.values = append(s.values, v) }
func (s *series) addMS(d time.Duration) { s.add(float64(d.Microseconds()) / 1000) }
func (s *series) median() float64       { return s.quantile(0.5) }
func (s *series) quantile(q float64) float64 {
	if len(s.values) == 0 {
		return 0
	}
	sorted := slices.Clone(s.values)
	slices.Sort(sorted)
	at := q * float64(len(sorted)-1)
	lo := int(at)
	hi := min(lo+1, len(sorted)-1)
	return sorted[lo] + (at-float64(lo))*(sorted[hi]-sorted[lo])
}

// by is the figure that this part of the runs, at least, didn't exceed; with a goal of its own.
func (s *series) by(part float64, goal string) *series {
	rest := &series{name: fmt.Sprintf("  of which %.0f %% by", 100*part), unit: s.unit, goal: goal, fine: s.fine}
	if len(s.values) > 0 {
		rest.add(s.quantile(part))
	}
	return rest
}

func (s *series) row() string {
	if len(s.values) == 0 {
		return fmt.Sprintf("  %-58s %10s", s.name, "no run")
	}
	format := "  %-58s %10.1f %10.1f %10.1f  %-4s %4d  %s"
	switch {
	case s.unit == "": // a ratio
		format = strings.ReplaceAll(format, ".1f", ".2f")
	case s.fine:
		format = strings.ReplaceAll(format, ".1f", ".3f")
	}
	return fmt.Sprintf(format, s.name, s.quantile(0), s.median(), s.quantile(1), s.unit, len(s.values), s.goal)
}

// table prints figures of one experiment.
func table(title string, list ...*series) {
	fmt.Printf("\n%s\n  %-58s %10s %10s %10s  %-4s %4s  %s\n", title, "", "min", "median", "max", "unit", "runs", "goal (median)")
	for _, s := range list {
		fmt.Println(s.row())
	}
}
