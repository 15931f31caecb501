// Package advisories makes a small vulnerability database in the format of
// Trivy's, and serves it where Trivy looks for one: as an OCI artifact in a
// registry. Demonstrations and tests scan with it where the public database
// can't be had, or where its daily change is not wanted.
//
// The advisories are real ones, with their real identifiers, versions and
// severities (advisories.yaml), so that what it finds the public database finds
// too. They leave an up-to-date Debian 12 without fixable findings.
//
//	ref, err := advisories.Push(ctx, "localhost:5000/trivy-db:2", time.Now())
//
// [Vulnerable] is a file that makes an image vulnerable according to both.
//
// It is no substitute for the public database: it knows a handful of advisories.
package advisories
