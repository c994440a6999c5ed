package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	lab        *Lab
	p          *process
	generation int // of the rules that were written last
}

// generationAction is the lab's own action: it tells by which rules polkitd goes.
const generationAction = "org.gangway.Lab1.generation"

const generationPolicy = `<?xml version="1.0" encoding="UTF-8"?>
<policyconfig><action id="` + generationAction + `"><description>Lab</description><message>Lab</message>
<defaults><allow_any>no</allow_any><allow_inactive>no</allow_inactive><allow_active>no</allow_active></defaults></action></policyconfig>
`

func (l *Lab) writePolkit() error {
	to := filepath.Join(l.dir, "polkit-actions")
	if _, err := os.Stat("/usr/share/polkit-1/actions"); err == nil {
		if err := gather("/usr/share/polkit-1/actions", "*.policy", "<policyconfig", to); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(to, "lab.policy"), []byte(generationPolicy), 0o644); err != nil {
		return err
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

// SetRules replaces the lab's rules, JavaScript as in polkit(8), and returns when a running polkitd goes
// by them. The text "" takes them away. The distribution's rules in /usr/share stay.
func (p *Polkit) SetRules(ctx context.Context, js string) error {
	p.generation++
	mark := fmt.Sprintf("polkit.addRule(function(action, subject) { if (action.id == %q && action.lookup(%q) == %q) return polkit.Result.YES; });\n",
		generationAction, "generation", fmt.Sprint(p.generation))
	dir := filepath.Join(p.lab.dir, "etc/polkit-1/rules.d")
	// polkitd reads anew for whatever happens in the directory: only a rename into it is one event.
	tmp := filepath.Join(p.lab.dir, "polkit.rules")
	err := os.WriteFile(tmp, []byte(mark+js), 0o644)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, "10-lab.rules"))
	}
	if err != nil {
		return fmt.Errorf("cannot write polkit rules: %w", err)
	}
	if p.p == nil || p.p.alive() != nil {
		return nil
	}
	return p.awaitRules(ctx)
}

// awaitRules waits until polkitd answers by the rules written last. It reads a changed directory
// more than once, so that its signal may be the echo of an earlier change: only an answer tells.
func (p *Polkit) awaitRules(ctx context.Context) error {
	nobody, err := p.lab.BusAs(65534, 65534) // root is never refused, whatever the rules
	if err != nil {
		return err
	}
	defer nobody.Close()
	details := map[string]string{"generation": fmt.Sprint(p.generation)}
	for {
		ok, err := p.lab.authorized(ctx, nobody.Names()[0], generationAction, details)
		if err != nil || ok {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("cannot see polkitd read its rules: %w", context.Cause(ctx))
		}
	}
}

// authorized asks polkitd about the peer of that unique name.
func (l *Lab) authorized(ctx context.Context, peer, action string, details map[string]string) (bool, error) {
	subject := struct {
		Kind    string
		Details map[string]godbus.Variant
	}{"system-bus-name", map[string]godbus.Variant{"name": godbus.MakeVariant(peer)}}
	var result struct {
		Authorized, Challenge bool
		Details               map[string]string
	}
	err := l.conn.Object(polkitName, polkitPath).CallWithContext(ctx, polkitName+".Authority.CheckAuthorization", 0,
		subject, action, details, uint32(0), "").Store(&result)
	return result.Authorized, err
}
