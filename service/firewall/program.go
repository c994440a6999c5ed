package firewall

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"
)

// lockTimeout is how long iptables waits for the xtables lock, in seconds.
const lockTimeout = 5

// programTimeout ends a program that hangs; well above lockTimeout.
const programTimeout = 20 * time.Second

// programs are the installed iptables programs of one backend.
type programs struct {
	iptables *iptables.IPTables
	// name is what the program was looked up by.
	name          string
	save, restore string
	// nft tells that the backend is nf_tables.
	nft bool
}

// findPrograms looks up name, name-save and name-restore in PATH.
func findPrograms(name string) (programs, error) {
	p := programs{name: name}
	path, err := exec.LookPath(name)
	if err != nil {
		return p, fmt.Errorf("cannot find program %q: %w", name, err)
	}
	if p.save, err = exec.LookPath(name + "-save"); err != nil {
		return p, fmt.Errorf("cannot find program %q: %w", name+"-save", err)
	}
	if p.restore, err = exec.LookPath(name + "-restore"); err != nil {
		return p, fmt.Errorf("cannot find program %q: %w", name+"-restore", err)
	}
	if p.iptables, err = iptables.New(iptables.Path(path), iptables.Timeout(lockTimeout)); err != nil {
		return p, fmt.Errorf("cannot use program %q: %w", path, err)
	}
	version, err := run(context.Background(), "", path, "--version")
	if err != nil {
		return p, fmt.Errorf("cannot use program %q: %w", path, err)
	}
	// iptables-restore has had -w since 1.6.2.
	if v1, v2, v3 := p.iptables.GetIptablesVersion(); v1 < 1 || v1 == 1 && (v2 < 6 || v2 == 6 && v3 < 2) {
		return p, fmt.Errorf("cannot use program %q: version %d.%d.%d is older than 1.6.2", path, v1, v2, v3)
	}
	p.nft = strings.Contains(version, "nf_tables")
	return p, nil
}

// read returns the whole IPv4 ruleset.
func (p programs) read(ctx context.Context) (ruleset, error) {
	text, err := run(ctx, "", p.save)
	if err != nil {
		return nil, fmt.Errorf("cannot read firewall rules: %w", err)
	}
	return parseRuleset(text)
}

// apply has iptables-restore carry out the text, atomically for each table.
func (p programs) apply(ctx context.Context, text string) error {
	_, err := run(ctx, text, p.restore, "--noflush", "-w", fmt.Sprint(lockTimeout))
	return err
}

func run(ctx context.Context, input, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		if text := strings.Join(strings.Fields(complaint.String()), " "); text != "" {
			return "", fmt.Errorf("%s: %w: %s", path, err, text)
		}
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return out.String(), nil
}
