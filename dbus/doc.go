// Package dbus puts the networks and uplinks on the bus: it serves the contract in
// package data from one immutable snapshot at a time and turns each new snapshot into the
// signals that say what changed.
//
//	inWorker ─ handler.go ─> serve.go ─ read ──────────────────────────> reply
//	                              └──── command: check, authorise, Backend, wait for publish ─> reply
//	Backend.Subscribe ─> publish.go: new tree, diff, signals
//
// A reply is never overtaken: one that shows a tree is sent before the signals of the next tree, one
// that ends a command after the signals of its change.
//
// It decides nothing about networks (package service does) and nothing about who may do
// what (package policy does). It uses neither godbus's default handler nor its prop and introspect.
package dbus
