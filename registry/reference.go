package registry

import (
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// splitReference takes a reference apart into a repository and either a tag or
// the image that it pins. Errors never repeat what might be a password.
func splitReference(ref string) (repo, tag string, img stages.Image, err error) {
	if err := refuseCredentials(ref); err != nil {
		return "", "", img, err
	}
	if strings.Contains(ref, "@") {
		img, err = stages.ParseImage(ref)
		return img.Repository(), "", img, err
	}
	slash, colon := strings.LastIndexByte(ref, '/'), strings.LastIndexByte(ref, ':')
	if slash < 0 || colon < slash {
		if err := stages.ValidateRepository(ref); err != nil {
			return "", "", img, fmt.Errorf("image reference: %w", err)
		}
		return "", "", img, fmt.Errorf("%w: image reference %q has neither a tag nor a digest; write :latest if that is meant", stages.ErrInvalid, ref)
	}
	repo, tag = ref[:colon], ref[colon+1:]
	if err := stages.ValidateRepository(repo); err != nil {
		return "", "", img, fmt.Errorf("image reference: %w", err)
	}
	if err := stages.ValidateTag(tag); err != nil {
		return "", "", img, fmt.Errorf("image reference: %w", err)
	}
	return repo, tag, img, nil
}

func validateRepository(repo string) error {
	if err := refuseCredentials(repo); err != nil {
		return err
	}
	return stages.ValidateRepository(repo)
}

// refuseCredentials looks for "user:password@" without repeating it.
func refuseCredentials(ref string) error {
	before, after, at := strings.Cut(ref, "@")
	if at && (!strings.HasPrefix(after, "sha256:") || strings.Contains(after, "/") || strings.Contains(before, "://")) {
		return fmt.Errorf("%w: an image reference has something other than a sha256 digest after '@'; credentials belong in registry.Config.Auth", stages.ErrInvalid)
	}
	return nil
}
