package helmx

import (
	"bytes"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

// mark stands for a scalar wherever values are merged for their origin instead of
// for themselves. Helm's own code does the merging, and takes a mark for what it
// takes every scalar for: something to keep or to replace.
type mark int

// setting is what a mark stands for.
type setting struct {
	origin Origin
	// doc is the file, path where the value is set in it.
	doc   *lineFinder
	path  []string
	value any
	// over is what the setting replaced among the values laid over the chart; 0 for
	// nothing.
	over mark
}

// at returns the origin with its line.
func (s setting) at() Origin {
	o := s.origin
	o.Line = s.doc.line(s.path)
	return o
}

// layers are the values to be laid over a chart's own.
type layers struct {
	// hidden are the strings that were encrypted in their file.
	hidden []string
	// hiddenAt are their places.
	hiddenAt [][]string
	// merged is what they come to, marked the same with marks for scalars.
	merged, marked map[string]any
	// settings are what marks stand for; the first is unused.
	settings []setting
	// hollow are the origins of what can't be marked, by joined path: nulls, which
	// have a meaning to Helm, and empty maps and lists, which have no scalars.
	hollow map[string]setting
}

func newLayers() *layers {
	return &layers{merged: map[string]any{}, marked: map[string]any{}, settings: make([]setting, 1), hollow: map[string]setting{}}
}

// clone lets the copy be added to. Marks mean the same in both.
func (l *layers) clone() *layers {
	hollow := make(map[string]setting, len(l.hollow))
	for key, s := range l.hollow {
		hollow[key] = s
	}
	return &layers{merged: tree.Clone(l.merged), marked: tree.Clone(l.marked), settings: slices.Clip(l.settings), hollow: hollow}
}

// lay lays values over what there is.
func (l *layers) lay(origin Origin, doc *lineFinder, values map[string]any) {
	before := l.marked
	l.merged = tree.Overlay(l.merged, values)
	l.marked = tree.Overlay(l.marked, l.mark(origin, doc, values))
	l.chain(before, origin, doc)
}

// assign lets apply change the values.
func (l *layers) assign(origin Origin, apply func(map[string]any) error) error {
	if err := apply(l.merged); err != nil {
		return err
	}
	before := tree.Clone(l.marked)
	// What succeeded on values does so on marks: both are told apart by shape only.
	if err := apply(l.marked); err != nil {
		return err
	}
	l.marked = l.markNew(origin, nil, l.marked, nil, l.merged).(map[string]any) //nolint:errcheck,forcetypeassert // A map comes back as one.
	l.chain(before, origin, nil)
	return nil
}

// mark returns values with marks for scalars.
func (l *layers) mark(origin Origin, doc *lineFinder, values map[string]any) map[string]any {
	return l.markNew(origin, doc, tree.Clone(values), nil, values).(map[string]any) //nolint:errcheck,forcetypeassert // A map comes back as one.
}

// markNew replaces scalars that are not marked yet. values has them in plain.
func (l *layers) markNew(origin Origin, doc *lineFinder, v any, at []string, values any) any {
	switch v := v.(type) {
	case nil, mark:
		return v
	case map[string]any:
		for key, item := range v {
			plain, _ := child(values, key)
			v[key] = l.markNew(origin, doc, item, append(slices.Clip(at), key), plain)
		}
		return v
	case []any:
		for i, item := range v {
			step := strconv.Itoa(i)
			plain, _ := child(values, step)
			v[i] = l.markNew(origin, doc, item, append(slices.Clip(at), step), plain)
		}
		return v
	default:
		l.settings = append(l.settings, setting{origin: origin, doc: doc, path: at, value: values})
		return mark(len(l.settings) - 1)
	}
}

// chain notes what the newest layer replaced, given the state before it.
func (l *layers) chain(before map[string]any, origin Origin, doc *lineFinder) {
	walk(l.marked, nil, func(steps []string, leaf any) {
		m, marked := leaf.(mark)
		was, existed := lookup(before, steps)
		switch {
		case !marked && len(steps) > 0 && (!existed || !reflect.DeepEqual(was, leaf)):
			l.hollow[joinPath(steps)] = setting{origin: origin, doc: doc, path: steps, value: leaf, over: under(before, steps)}
		case marked && was != leaf && l.settings[m].origin == origin && l.settings[m].over == 0:
			l.settings[m].over = under(before, steps)
		}
	})
}

// under returns the mark at steps, or on the way there.
func under(v any, steps []string) mark {
	for i := range len(steps) + 1 {
		at, _ := lookup(v, steps[:i])
		if m, ok := at.(mark); ok {
			return m
		}
	}
	return 0
}

func joinPath(steps []string) string { return strings.Join(steps, "\x00") }

// hide remembers what a decrypted layer has that its encrypted file doesn't show.
func (l *layers) hide(layer map[string]any, encrypted []byte) {
	walk(layer, nil, func(steps []string, leaf any) {
		if s, ok := leaf.(string); ok && len(s) >= shortest && !bytes.Contains(encrypted, []byte(s)) {
			l.hidden = append(l.hidden, s)
			l.hiddenAt = append(l.hiddenAt, steps)
		}
	})
}
