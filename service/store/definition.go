package store

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"

	"gangway/service/vnet"
)

// FileError says why a file can't be used.
type FileError struct {
	Path string
	// Line counts from 1; 0 when the whole file is at fault.
	Line int
	// Key is the key at fault, "" when none is.
	Key string
	Err error
}

func (e *FileError) Error() string {
	text := fmt.Sprintf("cannot use definition %q: ", e.Path)
	if e.Line > 0 {
		text += fmt.Sprintf("line %d: ", e.Line)
	}
	return text + e.Err.Error()
}

// Unwrap returns the cause: a *vnet.Error where a setting is at fault.
func (e *FileError) Unwrap() error { return e.Err }

// load reads a network's definition; with an error, the settings are the defaults.
func load(path, name string) (vnet.Settings, error) {
	data, err := readFile(path)
	if err != nil {
		return vnet.DefaultSettings(name), &FileError{Path: path, Err: err}
	}
	settings, err := parse(name, string(data))
	if e := (*FileError)(nil); errors.As(err, &e) {
		e.Path = path
	}
	return settings, err
}

// parse reads the text of a definition. An error is a *FileError without a Path.
func parse(name, text string) (vnet.Settings, error) {
	defaults := vnet.DefaultSettings(name)
	var raw map[string]toml.Primitive
	meta, err := toml.Decode(text, &raw)
	if err != nil {
		return defaults, syntaxError(err)
	}
	values := make(map[string]any, len(raw))
	for _, key := range topKeys(meta) { // in the order of the file: the first culprit is named
		value, err := decodeValue(&meta, key, raw[key])
		if err == nil {
			values[key] = value
			_, err = defaults.Merge(map[string]any{key: value})
		}
		if err != nil {
			return defaults, settingError(&meta, raw, text, key, values[key], err)
		}
	}
	settings, err := defaults.Merge(values)
	if err != nil {
		var e *vnet.Error
		if !errors.As(err, &e) {
			return defaults, &FileError{Err: err}
		}
		return defaults, settingError(&meta, raw, text, e.Key, values[e.Key], err)
	}
	return settings, nil
}

// reparse makes sure that a text that we are about to write means the settings.
func reparse(name, text string, settings vnet.Settings) error {
	got, err := parse(name, text)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(got.Values(), settings.Values()) {
		return errors.New("its file would not say the same")
	}
	return nil
}

func syntaxError(err error) error {
	var parsed toml.ParseError
	if !errors.As(err, &parsed) {
		return &FileError{Err: err}
	}
	cause := errors.New(parsed.Message)
	if parsed.LastKey != "" {
		cause = fmt.Errorf("at key %q: %s", parsed.LastKey, parsed.Message)
	}
	return &FileError{Line: parsed.Position.Line, Key: parsed.LastKey, Err: cause}
}

// topKeys lists the keys of the outermost table in the order of their first appearance.
func topKeys(meta toml.MetaData) []string {
	var keys []string
	seen := map[string]bool{}
	for _, key := range meta.Keys() {
		if !seen[key[0]] {
			seen[key[0]] = true
			keys = append(keys, key[0])
		}
	}
	return keys
}

// decodeValue turns a TOML value into the plain Go type that vnet.Settings.Merge takes.
func decodeValue(meta *toml.MetaData, key string, raw toml.Primitive) (any, error) {
	var v any
	if err := meta.PrimitiveDecode(raw, &v); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case int64:
		if v < 0 || v > math.MaxUint32 {
			return nil, vnet.SettingErrorf(key, "%d is not an unsigned 32-bit number", v)
		}
		return uint32(v), nil
	case []any: // an inline array, of tables if all is well
		tables := make([]map[string]any, 0, len(v))
		for _, entry := range v {
			table, ok := entry.(map[string]any)
			if !ok {
				return v, nil // Merge says what it should be
			}
			tables = append(tables, table)
		}
		return tables, nil
	}
	return v, nil
}

func settingError(meta *toml.MetaData, raw map[string]toml.Primitive, text, key string, value any, err error) error {
	line := lineOf(meta, raw[key])
	if hosts, ok := value.([]map[string]any); ok && len(hosts) > 0 {
		// Of an array of tables the parser remembers the last table alone.
		n := culprit(key, hosts)
		if starts := tableLines(text, key); len(starts) == len(hosts) && n < len(hosts) {
			line = starts[n]
		}
	}
	return &FileError{Line: line, Key: key, Err: err}
}

// culprit returns the index of the first entry with which the list is invalid, len(list) when
// the list by itself is valid.
func culprit(key string, list []map[string]any) int {
	return sort.Search(len(list), func(n int) bool {
		_, err := vnet.DefaultSettings("x").Merge(map[string]any{key: list[:n+1]})
		return err != nil
	})
}

// tableLines returns the numbers of the lines that look like the headers [[key]].
func tableLines(text, key string) []int {
	var lines []int
	number := 0
	for line := range strings.Lines(text) {
		number++
		inner, ok := strings.CutPrefix(strings.TrimSpace(line), "[[")
		if !ok {
			continue
		}
		header, _, ok := strings.Cut(inner, "]]")
		if ok && strings.Trim(strings.TrimSpace(header), `"'`) == key {
			lines = append(lines, number)
		}
	}
	return lines
}

// refusal makes the parser complain about a value, for its complaint names the line.
type refusal struct{}

func (*refusal) UnmarshalTOML(any) error { return errors.New("refused") }

// lineOf returns the line of a value, 0 if it isn't known. A table that is only implied
// (a.b = 1) has the line of what is in it.
func lineOf(meta *toml.MetaData, value toml.Primitive) int {
	var parsed toml.ParseError
	if err := meta.PrimitiveDecode(value, &refusal{}); errors.As(err, &parsed) && parsed.Position.Line > 0 {
		return parsed.Position.Line
	}
	var inner map[string]toml.Primitive
	if err := meta.PrimitiveDecode(value, &inner); err != nil {
		return 0
	}
	first := 0
	for _, v := range inner {
		if line := lineOf(meta, v); line > 0 && (first == 0 || line < first) {
			first = line
		}
	}
	return first
}
