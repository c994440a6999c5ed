// Package vnet holds the nouns of Gangway: networks and their settings, uplinks,
// what was observed of the machine, and the snapshot that the bus publishes.
//
// It is pure: only the standard library, no I/O, no clock. It decides nothing;
// decisions are package plan's, effects belong to the rooms beside it.
package vnet
