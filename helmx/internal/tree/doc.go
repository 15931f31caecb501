// Package tree copies and merges values as they come out of JSON and YAML.
//
//	merged := tree.Overlay(defaults, values)
//
// It never changes what it is given.
package tree
