package lab

import (
	"testing"
	"time"
)

// BenchmarkStart measures a lab from nothing to NetworkManager's primary connection, and its end.
func BenchmarkStart(b *testing.B) {
	var closing time.Duration
	for b.Loop() {
		l := Start(b, Options{})
		t0 := time.Now()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		closing += time.Since(t0)
	}
	b.ReportMetric(float64(closing.Milliseconds())/float64(b.N), "close-ms")
}
