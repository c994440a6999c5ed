package policy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const (
	authority     = "org.freedesktop.PolicyKit1"
	authorityPath = godbus.ObjectPath("/org/freedesktop/PolicyKit1/Authority")
	check         = "org.freedesktop.PolicyKit1.Authority.CheckAuthorization"
	cancelCheck   = "org.freedesktop.PolicyKit1.Authority.CancelCheckAuthorization"
	allowPrompt   = uint32(1) // AllowUserInteraction
)

// Options adjust a Checker; the zero value has the defaults.
type Options struct {
	// Timeout bounds a check that asks nobody, PromptTimeout one that may ask for a password.
	// Defaults: 10 seconds (polkitd may have to be started) and 5 minutes.
	Timeout, PromptTimeout time.Duration
	Log                    *slog.Logger
}

// Checker asks polkit whether a caller may do something. It is safe for concurrent use.
type Checker struct {
	conn    *godbus.Conn
	options Options
	signals chan *godbus.Signal
	// quit is closed to end watchNames, done by it when it has ended.
	quit, done chan struct{}
	closing    sync.Once

	mu     sync.Mutex
	gone   map[string]map[*watch]struct{} // by unique name
	asking map[uint32]int                 // questions in progress by user
}

// MaxQuestions is how many questions to polkit one user may have in progress: a prompt
// may stay open for minutes, and users must not take room from each other.
const MaxQuestions = 16

// ErrBusy is the error of a check beyond MaxQuestions.
var ErrBusy = fmt.Errorf("%d authorisations of this user are in progress already", MaxQuestions)

func (c *Checker) begin(uid uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking[uid] >= MaxQuestions {
		return false
	}
	c.asking[uid]++
	return true
}

func (c *Checker) end(uid uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking[uid]--; c.asking[uid] == 0 {
		delete(c.asking, uid)
	}
}

// Request is a question to polkit.
type Request struct {
	// Sender is the caller's unique bus name.
	Sender string
	Action Action
	// Interactive tells that the caller is prepared to wait while somebody is asked.
	Interactive bool
	// Details are shown in the prompt and seen by rules: "network", "interface".
	Details map[string]string
}

// Denied is the error of a check that did not end with a yes.
type Denied struct {
	Action Action
	// CouldAsk tells that somebody might have been asked, had the caller allowed it.
	CouldAsk bool
	// Reason says in a few words why.
	Reason string
}

func (d *Denied) Error() string { return fmt.Sprintf("not authorised for %s: %s", d.Action, d.Reason) }

// New makes a Checker on the connection, which must deliver signals in order. Close ends it.
func New(conn *godbus.Conn, options Options) *Checker {
	if options.Timeout == 0 {
		options.Timeout = 10 * time.Second
	}
	if options.PromptTimeout == 0 {
		options.PromptTimeout = 5 * time.Minute
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	c := &Checker{conn: conn, options: options, signals: make(chan *godbus.Signal, 16),
		quit: make(chan struct{}), done: make(chan struct{}),
		gone: map[string]map[*watch]struct{}{}, asking: map[uint32]int{}}
	conn.Signal(c.signals)
	go c.watchNames()
	return c
}

// UserID returns the uid of the caller with the unique bus name, as the bus knows it.
func (c *Checker) UserID(ctx context.Context, sender string) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	var uid uint32
	err := c.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, sender).Store(&uid)
	if err != nil {
		return 0, fmt.Errorf("cannot find the user of %q: %w", sender, err)
	}
	return uid, nil
}

// Check returns the caller's uid if it may perform the action, else a *Denied or ErrBusy. Root may do
// everything, whether or not there is a polkitd; for everybody else only polkit's yes counts:
// any error, silence or absence denies. It may take as long as somebody needs to type a
// password, unless ctx ends or the caller leaves the bus, which withdraws the question.
func (c *Checker) Check(ctx context.Context, r Request) (uint32, error) {
	uid, err := c.UserID(ctx, r.Sender)
	if err != nil {
		return 0, c.deny(r, "the caller's user is unknown", err)
	}
	if uid == 0 {
		return 0, nil
	}
	if !c.begin(uid) {
		return uid, ErrBusy
	}
	defer c.end(uid)
	ctx, stop, err := c.whilePresent(ctx, r.Sender)
	if err != nil {
		return 0, c.deny(r, "the caller's presence can't be watched", err)
	}
	defer stop()
	// A caller that left before the watch was there is noticed here.
	if again, err := c.UserID(ctx, r.Sender); err != nil || again != uid {
		return 0, c.deny(r, errLeft.Error(), err)
	}
	return uid, c.ask(ctx, r)
}

func (c *Checker) ask(ctx context.Context, r Request) error {
	timeout, flags := c.options.Timeout, uint32(0)
	if r.Interactive {
		timeout, flags = c.options.PromptTimeout, allowPrompt
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	type subject struct {
		Kind    string
		Details map[string]godbus.Variant
	}
	who := subject{"system-bus-name", map[string]godbus.Variant{"name": godbus.MakeVariant(r.Sender)}}
	details := r.Details
	if details == nil {
		details = map[string]string{}
	}
	var result struct {
		Authorized, Challenge bool
		Details               map[string]string
	}
	id := rand.Text()
	object := c.conn.Object(authority, authorityPath)
	err := object.CallWithContext(ctx, check, 0, who, string(r.Action), details, flags, id).Store(&result)
	if err != nil && ctx.Err() != nil {
		// Nobody waits for the answer any more: take the prompt off the screen. No reply is
		// waited for, and none is needed: polkitd forgets the id with the question.
		object.Go(cancelCheck, godbus.FlagNoReplyExpected|godbus.FlagNoAutoStart, nil, id)
	}
	switch {
	case errors.Is(context.Cause(ctx), errLeft):
		return c.deny(r, errLeft.Error(), nil)
	case errors.Is(err, context.DeadlineExceeded):
		return c.deny(r, fmt.Sprintf("polkit did not answer within %s", timeout), err)
	case err != nil:
		return c.deny(r, "polkit could not be asked: "+err.Error(), err)
	case result.Authorized:
		return nil
	case result.Challenge && !r.Interactive:
		return &Denied{Action: r.Action, CouldAsk: true, Reason: "interactive authentication is required"}
	case result.Details["polkit.dismissed"] != "":
		return &Denied{Action: r.Action, Reason: "the authentication was dismissed"}
	case result.Challenge:
		return &Denied{Action: r.Action, Reason: "authentication is required, and there is no agent to ask for it"}
	}
	return &Denied{Action: r.Action, Reason: "polkit says no"}
}

func (c *Checker) deny(r Request, reason string, err error) *Denied {
	if err != nil {
		c.options.Log.Warn("authorisation not possible", "sender", r.Sender, "action", string(r.Action), "reason", reason, "err", err)
	}
	return &Denied{Action: r.Action, Reason: reason}
}
