package link

import (
	"log/slog"
	"path/filepath"
	"sync"
)

// Options are what a Kernel is made with.
type Options struct {
	// RuntimeDir is where borrowed sysctls are remembered, in sysctl.json. It should not
	// outlive a boot, since sysctls don't either. It is made when the first is borrowed.
	RuntimeDir string
	Log        *slog.Logger
}

// Kernel is the kernel's network state in the network namespace of the goroutine that first
// uses it. Its methods may be called from any goroutine; Apply and Observe exclude each other.
type Kernel struct {
	log    *slog.Logger
	mu     sync.Mutex // guards conn and memory
	conn   *conn
	memory *memory
}

// New makes a Kernel. It opens nothing yet.
func New(o Options) *Kernel {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Kernel{log: log, memory: &memory{file: filepath.Join(o.RuntimeDir, "sysctl.json"), log: log}}
}

// Close releases the netlink socket. The Kernel can be used again, and reopens it.
func (k *Kernel) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.disconnect()
}

func (k *Kernel) disconnect() {
	if k.conn != nil {
		k.conn.close()
		k.conn = nil
	}
}

// connect returns the request socket, which stays open between passes.
func (k *Kernel) connect() (*conn, error) {
	if k.conn == nil || k.conn.broken {
		k.disconnect()
		c, err := dial()
		if err != nil {
			return nil, err
		}
		k.conn = c
	}
	return k.conn, nil
}
