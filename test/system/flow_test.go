package system_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// flowOf returns the identity of the conntrack entry of the host's own UDP flow, "" if there is none.
func (w *world) flowOf(local netip.AddrPort) string {
	w.t.Helper()
	out := w.run("conntrack", "-L", "-o", "id", "-p", "udp", "--src", local.Addr().String(), "--sport", strconv.Itoa(int(local.Port())))
	return regexp.MustCompile(`id=\d+`).FindString(out)
}

// echoes has the internet's echo server repeat a line.
func (w *world) echoes(conn net.Conn) {
	w.t.Helper()
	line := "how is it there?\n"
	_, err := io.WriteString(conn, line)
	w.must(err)
	w.hears(conn, line)
}

func (w *world) hears(conn net.Conn, line string) {
	w.t.Helper()
	w.must(conn.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, len(line))
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != line {
		w.t.Fatalf("heard %q (%v), want %q", buf, err, line)
	}
}

// refusedAtOnce fails unless the guest is told that there is no way, long before a connection would time out.
func (w *world) refusedAtOnce(g *lab.Guest) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second) // TCP gives up after 130
	defer cancel()
	conn, err := g.DialTCP(ctx, lab.EchoIPv4)
	if err == nil {
		conn.Close()
		w.t.Errorf("%s connected", g.Name)
		return
	}
	if !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ECONNREFUSED) {
		w.t.Errorf("%s was not told that there is no way: %v", g.Name, err)
	}
}

// pings tells whether the host gets an answer to one of three pings.
func (w *world) pings(h *lab.Host, to netip.Addr) error {
	_, err := h.Run(w.ctx, "ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", to.String())
	return err
}

// lines are the non-empty lines of a text.
func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}
