package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const (
	polkitName = "org.freedesktop.PolicyKit1"
	polkitPath = "/org/freedesktop/PolicyKit1/Authority"
)

// Polkit is the laptop's polkitd, with rules of the lab's own. Its methods are not for concurrent use.
// There is no agent and no login session, so an action that asks for a password is denied.
type Polkit struct {
	lab *Lab
	p   *process
}

func (l *Lab) writePolkit() error {
	to := filepath.Join(l.dir, "polkit-actions")
	if _, err := os.Stat("/usr/share/polkit-1/actions"); err == nil {
		if err := gather("/usr/share/polkit-1/actions", "*.policy", "<policyconfig", to); err != nil {
			return err
		}
	}
	return gather(l.options.PolkitActionDir, "*.policy", "<policyconfig", to)
}

// Start starts polkitd and returns when it owns its name.
func (p *Polkit) Start(ctx context.Context) (err error) {
	if p.p, err = p.lab.spawn(p.lab.Laptop, "polkit", "/usr/lib/polkit-1/polkitd"); err != nil {
		return err
	}
	return p.lab.waitName(ctx, polkitName, p.p)
}

// Stop kills polkitd; it is not activatable, so it stays away until Start.
func (p *Polkit) Stop(ctx context.Context) error {
	if err := p.p.stop(ctx, unix.SIGKILL); err != nil {
		return err
	}
	return p.lab.waitName(ctx, polkitName, nil)
}

// Allow replaces the rules by one that says yes to exactly these actions, whoever asks.
func (p *Polkit) Allow(ctx context.Context, actions ...string) error {
	quoted := make([]string, len(actions))
	for i, a := range actions {
		quoted[i] = fmt.Sprintf("%q", a)
	}
	return p.SetRules(ctx, fmt.Sprintf("polkit.addRule(function(action, subject) { if ([%s].indexOf(action.id) >= 0) return polkit.Result.YES; });\n", strings.Join(quoted, ", ")))
}

// SetRules replaces the lab's rules, JavaScript as in polkit(8), and returns when a running polkitd has
// read them. The text "" takes them away. The distribution's rules in /usr/share stay.
func (p *Polkit) SetRules(ctx context.Context, js string) error {
	conn, err := p.lab.Bus()
	if err != nil {
		return err
	}
	defer conn.Close()
	changed := make(chan *godbus.Signal, 16)
	conn.Signal(changed)
	if err := conn.AddMatchSignalContext(ctx, godbus.WithMatchSender(polkitName), godbus.WithMatchObjectPath(polkitPath), godbus.WithMatchMember("Changed")); err != nil {
		return fmt.Errorf("cannot watch polkitd: %w", err)
	}
	dir := filepath.Join(p.lab.dir, "etc/polkit-1/rules.d")
	// A dot file in the same directory is not a rule; the rename makes the change one event.
	tmp := filepath.Join(dir, ".new")
	if err = os.WriteFile(tmp, []byte(js), 0o644); err == nil {
		err = os.Rename(tmp, filepath.Join(dir, "10-lab.rules"))
	}
	if err != nil {
		return fmt.Errorf("cannot write polkit rules: %w", err)
	}
	if p.p == nil || p.p.alive() != nil {
		return nil
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot see polkitd read its rules: %w", context.Cause(ctx))
	}
}
