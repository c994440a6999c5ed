package lab

import (
	"context"
	"errors"
	"time"
)

// final marks an error that no waiting will mend: poll gives up at once.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// poll asks cond every few milliseconds until it holds; at the deadline it returns the last error.
func poll(ctx context.Context, cond func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := cond()
		if ok && err == nil {
			return nil
		}
		if errors.As(err, new(final)) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
