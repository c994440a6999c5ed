package dnsmasq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"gangway/service/plan"
)

// start makes the network's server run with the specification and returns when it serves.
func (r *Room) start(ctx context.Context, names *owners, spec plan.ServerSpec) error {
	f := r.files(spec.Network)
	config, err := renderConfig(spec, paths{dhcpHosts: f.dhcpHosts, names: f.names, leases: f.leases}, r.account)
	if err != nil {
		return err
	}
	dhcpHosts, hostNames, err := renderHosts(spec)
	if err != nil {
		return err
	}
	if s := r.find(spec.Network); s != nil && s.Digest == spec.Digest() {
		if s.HostsDigest == spec.HostsDigest() {
			return nil
		}
		return r.setHosts(ctx, spec)
	}
	if err := r.stop(spec.Network); err != nil {
		return err
	}
	for _, dir := range []string{r.runtime, f.dir, r.leases} {
		if err := makeDir(dir); err != nil {
			return err
		}
	}
	if err := pruneLeases(f.leases, spec.Address.Masked(), r.clock()); err != nil {
		return err
	}
	r.forgetSeen(spec.Network)
	for path, content := range map[string]string{f.config: config, f.dhcpHosts: dhcpHosts, f.names: hostNames} {
		if err := writeFile(path, []byte(content)); err != nil {
			return err
		}
	}
	return r.launch(ctx, names, record{Network: spec.Network, Digest: spec.Digest(), HostsDigest: spec.HostsDigest(),
		KnownUpstreams: true}, spec.Address.Addr())
}

// launch starts dnsmasq with the files in place. address is where it must answer DNS, the
// zero Addr if that isn't known.
func (r *Room) launch(ctx context.Context, names *owners, rec record, address netip.Addr) error {
	f := r.files(rec.Network)
	owner := names.expect(busName(rec.Network))
	s, err := r.spawn(rec)
	if err != nil {
		return fmt.Errorf("cannot start dnsmasq of %q: %w", rec.Network, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	if err = r.await(ctx, s, owner); err == nil && address.IsValid() {
		err = checkBound(address)
	}
	if err == nil {
		if line := complaint(f.log, 0, f.dhcpHosts, f.names); line != "" {
			err = errors.New(line)
		}
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("cannot start dnsmasq of %q: %w", rec.Network, err)
	return errors.Join(err, s.end(), f.removeFiles())
}

// spawn starts the process, which is recorded at once.
func (r *Room) spawn(rec record) (*server, error) {
	f := r.files(rec.Network)
	log, err := os.OpenFile(f.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	pidfd := -1
	cmd := exec.Command(r.program, configOption+f.config)
	cmd.Env = []string{"LC_ALL=C"} // nothing of ours; messages in English
	if r.busAddress != "" {
		cmd.Env = append(cmd.Env, "DBUS_SYSTEM_BUS_ADDRESS="+r.busAddress)
	}
	cmd.Dir = "/"
	// A file, no pipe: it must be able to complain when we are gone.
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: a terminal's signals are not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	rec.PID = cmd.Process.Pid
	abort := func(err error) (*server, error) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	if pidfd < 0 {
		return abort(errors.New("the kernel has no pidfd (Linux 5.4)"))
	}
	s, err := newServer(rec, pidfd, cmd)
	if err != nil {
		return abort(err)
	}
	if s.Start, err = startTime(s.PID); err == nil {
		err = r.writeRecord(s.record)
	} else if words := lastLine(f.log); words != "" {
		err = errors.New(words) // ended already
	}
	if err != nil {
		s.release()
		return abort(err)
	}
	s.ending.Store(true) // until it serves, its end is the start's failure, nothing else
	r.track(s)
	return s, nil
}

// await returns when the server answers on the bus. By then its sockets are bound: dnsmasq
// binds before it connects to the bus, and answers when everything else is done.
func (r *Room) await(ctx context.Context, s *server, owner <-chan string) error {
	for {
		select {
		case name := <-owner:
			// The server before may have had the name for a moment more.
			if pid, err := r.peerID(ctx, name); err != nil || pid != s.PID {
				continue
			}
			if err := r.call(ctx, name, s.Network, "GetVersion"); err != nil {
				if !s.endsSoon() {
					return fmt.Errorf("it does not answer on the bus: %w", err)
				}
				return r.lastWords(s)
			}
			s.ending.Store(false)
			if !s.running() {
				return r.lastWords(s)
			}
			return nil
		case <-s.exited:
			return r.lastWords(s)
		case <-ctx.Done():
			if words := lastLine(r.files(s.Network).log); words != "" {
				return fmt.Errorf("it has not come to the bus: %w (it said: %s)", ctx.Err(), words)
			}
			return fmt.Errorf("it has not come to the bus: %w", ctx.Err())
		}
	}
}

// endsSoon tells whether the process ends within a moment: its connection closes first.
func (s *server) endsSoon() bool {
	select {
	case <-s.exited:
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}

// lastWords returns what the server said when it ended.
func (r *Room) lastWords(s *server) error {
	if words := lastLine(r.files(s.Network).log); words != "" {
		return errors.New(words)
	}
	return fmt.Errorf("it ended without a word: %s", s.command.ProcessState)
}

// checkBound returns an error if nobody listens at the address's port 53: dnsmasq
// takes the absence of the address, or of the bridge, for a thing to wait for.
func checkBound(address netip.Addr) error {
	const path = "/proc/self/net/udp"
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read sockets: %w", err)
	}
	a := address.As4()
	// The kernel prints the address's bytes as a number of the machine's own order.
	local := fmt.Sprintf(" %08X:%04X ", binary.NativeEndian.Uint32(a[:]), 53)
	if !strings.Contains(string(b), local) {
		return fmt.Errorf("it does not listen at %s: no interface of the configuration has that address", address)
	}
	return nil
}

// stop ends the network's server and removes its files, but for the leases.
func (r *Room) stop(network string) error {
	if s := r.find(network); s != nil {
		if err := s.end(); err != nil {
			return err
		}
	}
	return r.files(network).removeFiles()
}
