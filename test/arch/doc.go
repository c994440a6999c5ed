// Package arch has tests of the project's own shape: who may import whom, and what no file may
// contain. It is not responsible for what the code does.
package arch
