// Package plan decides: from what is wanted and what was observed it computes the list of
// operations that make the one of the other, and the state to publish.
//
// It is pure: no I/O, no clock, no memory. Planned against its own result, the list is empty.
package plan
