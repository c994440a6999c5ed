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

// findPrograms looks up name, name-save and name-restore, of a protocol, in PATH.
func findPrograms(name string, protocol iptables.Protocol) (programs, error) {
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
	if p.iptables, err = iptables.New(iptables.IPFamily(protocol), iptables.Path(path), iptables.Timeout(lockTimeout)); err != nil {
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

// process is a program that runs.
type process struct {
	path           string
	cmd            *exec.Cmd
	out, complaint bytes.Buffer
	cancel         context.CancelFunc
	err            error
}

// start starts a program; wait must be called. Programs that are to run side by side are started by one
// goroutine, since they inherit its thread's network namespace.
func start(ctx context.Context, input, path string, args ...string) *process {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	p := &process{path: path, cmd: exec.CommandContext(ctx, path, args...), cancel: cancel}
	p.cmd.Env = append(os.Environ(), "LC_ALL=C")
	p.cmd.Stdin = strings.NewReader(input)
	p.cmd.WaitDelay = time.Second
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.complaint
	p.err = p.cmd.Start()
	return p
}

// wait waits for the program's end and returns what it printed.
func (p *process) wait() (string, error) {
	defer p.cancel()
	err := p.err
	if err == nil {
		err = p.cmd.Wait()
	}
	if err == nil {
		return p.out.String(), nil
	}
	if text := strings.Join(strings.Fields(p.complaint.String()), " "); text != "" {
		return "", fmt.Errorf("%s: %w: %s", p.path, err, text)
	}
	return "", fmt.Errorf("%s: %w", p.path, err)
}

func run(ctx context.Context, input, path string, args ...string) (string, error) {
	return start(ctx, input, path, args...).wait()
}
