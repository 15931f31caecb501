package scan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

const (
	trivySchema = 2
	// maxReport bounds what a broken or hostile scanner can make us hold; the
	// report of an image with thousands of packages is a hundred times smaller.
	maxReport = 512 << 20
	classOS   = "os-pkgs"
)

// trivyReport is the part of Trivy's JSON that a [stages.Report] is made of:
// https://github.com/aquasecurity/trivy/blob/v0.72.0/pkg/types/report.go
type trivyReport struct {
	SchemaVersion int
	Trivy         struct{ Version string }
	ArtifactName  string
	ArtifactType  string
	Metadata      struct {
		OS          *struct{ Family, Name string }
		RepoDigests []string
	}
	Results []trivyResult
}

type trivyResult struct {
	Target          string
	Class           string
	Type            string
	Packages        []struct{}
	Vulnerabilities []trivyVulnerability
}

type trivyVulnerability struct {
	VulnerabilityID  string
	PkgName          string
	PkgPath          string
	InstalledVersion string
	FixedVersion     string
	Severity         string
	Title            string
	PrimaryURL       string
}

// ParseTrivyJSON reads the JSON report that Trivy writes about a container image
// (trivy image --format json --list-all-pkgs). The report must say by digest
// what was scanned, otherwise the error matches [stages.ErrNotPinned]; if it
// says so in two ways that differ, it matches [stages.ErrSubjectMismatch]; any
// other malformed input gives one matching [stages.ErrInvalid].
//
// Trivy doesn't write when its database was made: Database is zero and for the
// caller to fill. Without --list-all-pkgs, Packages is 0.
func ParseTrivyJSON(r io.Reader) (stages.Report, error) {
	var in trivyReport
	limited := &io.LimitedReader{R: r, N: maxReport + 1}
	dec := json.NewDecoder(limited)
	err := dec.Decode(&in)
	if err == nil {
		if _, end := dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is more after the report")
		}
	}
	switch {
	case limited.N <= 0:
		return stages.Report{}, fmt.Errorf("%w: Trivy report is larger than %d MiB", stages.ErrInvalid, maxReport>>20)
	case err != nil:
		return stages.Report{}, fmt.Errorf("%w: Trivy report is not one JSON document: %w", stages.ErrInvalid, err)
	case in.SchemaVersion != trivySchema:
		return stages.Report{}, fmt.Errorf("%w: Trivy report has schema version %d, expected %d", stages.ErrInvalid, in.SchemaVersion, trivySchema)
	case in.ArtifactType != "container_image":
		return stages.Report{}, fmt.Errorf("%w: Trivy report is about a %q, expected a container_image", stages.ErrInvalid, in.ArtifactType)
	}
	image, err := in.subject()
	if err != nil {
		return stages.Report{}, err
	}
	report := stages.Report{Image: image, Scanner: "trivy", Findings: []stages.Finding{}}
	if v := strings.TrimPrefix(in.Trivy.Version, "v"); v != "" {
		report.Scanner += " " + v
	}
	if in.Metadata.OS != nil {
		report.OS = strings.TrimSpace(in.Metadata.OS.Family + " " + in.Metadata.OS.Name)
	}
	for _, result := range in.Results {
		report.Packages += len(result.Packages)
		for _, v := range result.Vulnerabilities {
			f, err := finding(result, v, report.OS)
			if err != nil {
				return stages.Report{}, err
			}
			report.Findings = append(report.Findings, f)
		}
	}
	report.Findings = unique(report.Findings)
	Sort(report.Findings)
	return report, nil
}

// unique leaves one finding of each advisory about each package, as Trivy's
// command line does: the one with the greatest fixed version, as text.
func unique(findings []stages.Finding) []stages.Finding {
	type key struct{ id, pkg, installed, target, kind string }
	at := map[key]int{}
	kept := []stages.Finding{}
	for _, f := range findings {
		k := key{f.ID, f.Package, f.Installed, f.Target, f.Type}
		i, seen := at[k]
		switch {
		case !seen:
			at[k] = len(kept)
			kept = append(kept, f)
		case kept[i].Fixed < f.Fixed:
			kept[i] = f
		}
	}
	return kept
}

// subject finds out what was scanned. Trivy names the artifact as it was asked
// for it, and the digest that the registry answered with.
func (in *trivyReport) subject() (stages.Image, error) {
	asked, err := stages.ParseImage(in.ArtifactName)
	named := err == nil
	if !named && len(in.Metadata.RepoDigests) == 0 {
		return stages.Image{}, fmt.Errorf("Trivy report has no digest of what was scanned: %w", err)
	}
	found := asked
	for i, ref := range in.Metadata.RepoDigests {
		image, err := stages.ParseImage(spellOut(ref))
		if err != nil {
			return stages.Image{}, fmt.Errorf("Trivy report, RepoDigests: %w", err)
		}
		if (named || i > 0) && image.Digest() != found.Digest() {
			return stages.Image{}, fmt.Errorf("%w: Trivy report names both %s and %s", stages.ErrSubjectMismatch, found, image)
		}
		if !named && i == 0 {
			found = image
		}
	}
	return found, nil
}

// spellOut adds the registry that Trivy leaves out for Docker Hub.
func spellOut(ref string) string {
	host, _, path := strings.Cut(ref, "/")
	switch {
	case !path:
		return "docker.io/library/" + ref
	case host != "localhost" && !strings.ContainsAny(host, ".:"):
		return "docker.io/" + ref
	}
	return ref
}

func finding(result trivyResult, v trivyVulnerability, os string) (stages.Finding, error) {
	if v.VulnerabilityID == "" || v.PkgName == "" {
		return stages.Finding{}, fmt.Errorf("%w: Trivy report has a finding without ID or package in %q", stages.ErrInvalid, result.Target)
	}
	severity := stages.SeverityUnknown
	if v.Severity != "" {
		var err error
		if severity, err = stages.ParseSeverity(v.Severity); err != nil {
			return stages.Finding{}, fmt.Errorf("Trivy report, %s in %s: %w", v.VulnerabilityID, v.PkgName, err)
		}
	}
	target := result.Target
	switch {
	case result.Class == classOS && os != "":
		// Trivy writes the image's name here, which the report has already.
		target = os
	case v.PkgPath != "":
		target = v.PkgPath
	}
	return stages.Finding{
		ID: v.VulnerabilityID, Severity: severity, Package: v.PkgName,
		Installed: v.InstalledVersion, Fixed: v.FixedVersion,
		Target: target, Type: result.Type, Title: v.Title, URL: v.PrimaryURL,
	}, nil
}
