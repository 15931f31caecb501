package stages

import "context"

// BuilderFunc lets a function serve as a [Builder].
type BuilderFunc func(ctx context.Context, src Source) (Image, error)

// Build calls f.
func (f BuilderFunc) Build(ctx context.Context, src Source) (Image, error) { return f(ctx, src) }

// ScannerFunc lets a function serve as a [Scanner].
type ScannerFunc func(ctx context.Context, img Image) (Report, error)

// Scan calls f.
func (f ScannerFunc) Scan(ctx context.Context, img Image) (Report, error) { return f(ctx, img) }

// SignerFunc lets a function serve as a [Signer].
type SignerFunc func(ctx context.Context, img Image) (Signature, error)

// Sign calls f.
func (f SignerFunc) Sign(ctx context.Context, img Image) (Signature, error) { return f(ctx, img) }

// SignatureVerifierFunc lets a function serve as a [SignatureVerifier].
type SignatureVerifierFunc func(ctx context.Context, img Image) (Signature, error)

// VerifySignature calls f.
func (f SignatureVerifierFunc) VerifySignature(ctx context.Context, img Image) (Signature, error) {
	return f(ctx, img)
}

// DeployerFunc lets a function serve as a [Deployer]. The function must check
// the clearance.
type DeployerFunc func(ctx context.Context, req DeployRequest) (Release, error)

// Deploy calls f.
func (f DeployerFunc) Deploy(ctx context.Context, req DeployRequest) (Release, error) {
	return f(ctx, req)
}

// VerifierFunc lets a function serve as a [Verifier].
type VerifierFunc func(ctx context.Context, rel Release) (Verification, error)

// Verify calls f.
func (f VerifierFunc) Verify(ctx context.Context, rel Release) (Verification, error) {
	return f(ctx, rel)
}
