package ndp

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is a clock that nobody sets and that goes on while the machine sleeps, as the
// lifetimes do that guests were told: Go's own stands still then. What it returns is only good for
// comparisons.
func bootTime() time.Time {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Now()
	}
	return time.Unix(t.Unix())
}

// wallOf returns the time of day of a time of the room's clock, for the disk.
func (r *Room) wallOf(t, now, wall time.Time) time.Time { return wall.Add(t.Sub(now)) }

// ofWall is its reverse. What is in the future was written before the clock was set back: it
// counts as now.
func (r *Room) ofWall(t, now, wall time.Time) time.Time {
	if age := wall.Sub(t); age > 0 {
		return now.Add(-age)
	}
	return now
}
