package stages

import (
	"fmt"
	"maps"
)

// Source is the commit that a run delivers.
type Source struct {
	// Dir is the folder with the source tree, required.
	Dir string `json:"dir"`
	// Revision is the commit, where known. It is recorded with the release.
	Revision string `json:"revision,omitempty"`
	// Author is who made the commit, where known. It is recorded with the release.
	Author string `json:"author,omitempty"`
	// Tags are given to the image beside its digest, such as a build number.
	// They are for people: nothing in a run ever reads them back.
	Tags []string `json:"tags,omitempty"`
	// BuildArgs are handed to the builder over its own. They are not secret:
	// they end up in the image's history.
	BuildArgs map[string]string `json:"buildArgs,omitempty"`
}

// Validate reports, with an error matching [ErrInvalid], what makes s unusable.
func (s Source) Validate() error {
	if s.Dir == "" {
		return fmt.Errorf("%w: source has no directory", ErrInvalid)
	}
	for _, tag := range s.Tags {
		if err := ValidateTag(tag); err != nil {
			return fmt.Errorf("source %s: %w", quote(s.Dir), err)
		}
	}
	return nil
}

// Clone returns a deep copy.
func (s Source) Clone() Source {
	s.Tags = append([]string(nil), s.Tags...)
	s.BuildArgs = maps.Clone(s.BuildArgs)
	return s
}
