package archtest

// module is the path that all folders below are relative to.
const module = "github.com/fairlead-dev/fairlead"

// everything lets a row import all of our packages.
var everything = []string{"..."}

// imports is the architecture: one row per folder, and which of our folders its
// production code may import beside its own subfolders. A row covers what is
// below it unless a longer row does; "*" stands for one path element, and each
// folder that it matches is a row of its own.
var imports = []row{
	{folder: "." /* the tour, no code */},
	{folder: "internal/seal"},
	{folder: "internal/archtest"},
	{folder: "stages", may: []string{"internal/seal"}},
	{folder: "stages/stagestest", may: []string{"stages"}},
	{folder: "stages/*", may: []string{"stages", "registry"}},
	{folder: "pipeline", may: []string{"stages", "internal/seal"}},
	{folder: "registry", may: []string{"stages"}},
	{folder: "scan", may: []string{"stages"}},
	{folder: "scan/trivy", may: []string{"stages", "scan"}},
	{folder: "sign", may: []string{"stages", "registry"}},
	{folder: "helmx", may: []string{"stages"}},
	{folder: "helmx/sops/cloudkms", may: []string{"stages", "helmx"}},
	{folder: "rollout", may: []string{"stages", "rollout/internal/wait"}},
	{folder: "rollout/internal/wait"},
	{folder: "rollout/celrule", may: []string{"stages", "rollout"}},
	{folder: "rollout/smoke/grpcprobe", may: []string{"stages", "rollout"}},
	{folder: "rollout/traffic", may: []string{"stages", "rollout/internal/wait"}},
	{folder: "rollout/traffic/traffictest", may: []string{"stages", "stages/stagestest", "rollout/traffic"}},
	{folder: "rollout/sequential"},
	{folder: "rollout/metric", may: []string{"stages", "rollout/sequential"}},
	{folder: "rollout/metric/metrictest", may: []string{"rollout/metric"}},
	{folder: "rollout/metric/prometheus", may: []string{"stages", "rollout/metric"}},
	{folder: "rollout/metric/otlp", may: []string{"stages", "rollout/metric"}},
	{folder: "rollout/metric/otlp/otlpgrpc", may: []string{"rollout/metric/otlp"}},
	{folder: "notify", may: []string{"stages", "pipeline"}},
	{folder: "examples", may: everything},
	{folder: "e2e", may: everything},
}

// testEdgesIgnored are the imports that tests may have although they point back:
// the tests of whatever declares an interface use the suite made for it.
var testEdgesIgnored = []edge{
	{from: "stages", to: "stages/stagestest"},
	{from: "rollout/traffic", to: "rollout/traffic/traffictest"},
}

// The third-party families that budgets speak of, as import path prefixes.
var (
	kubernetes = []string{"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "k8s.io/cli-runtime", "k8s.io/kubectl", "sigs.k8s.io/controller-runtime"}
	helm       = []string{"helm.sh/helm"}
	trivy      = []string{"github.com/aquasecurity/trivy", "github.com/aquasecurity/trivy-db"}
	opa        = []string{"github.com/open-policy-agent"}
	buildkit   = []string{"github.com/moby/buildkit"}
	cosign     = []string{"github.com/sigstore/cosign"}
	cel        = []string{"github.com/google/cel-go"}
	prometheus = []string{"github.com/prometheus"}
	otlp       = []string{"go.opentelemetry.io/proto"}
	grpc       = []string{"google.golang.org/grpc"}
	clouds     = []string{"cloud.google.com/go", "github.com/aws", "github.com/Azure/azure-sdk-for-go"}
)

// budgets say what each folder, with all that it reaches, may cost.
var budgets = []budget{
	{folder: "stages", only: []string{}},
	{folder: "internal/seal", only: []string{}},
	{folder: "pipeline", only: []string{"github.com/cenkalti/backoff"}},
	{folder: "notify", only: []string{"github.com/cenkalti/backoff", "golang.org/x/term", "golang.org/x/sys"}},
	{folder: "registry", never: join(kubernetes, helm, trivy, opa, buildkit, cosign, clouds)},
	{folder: "scan", never: join(kubernetes, helm, trivy, opa, buildkit, cosign, clouds)},
	{folder: "sign", never: join(kubernetes, helm, trivy, opa, buildkit, cosign, clouds)},
	{folder: "stages/policy", never: join(kubernetes, helm, trivy, buildkit, cosign, clouds)},
	{folder: "stages/buildkit", never: join(kubernetes, helm, trivy, opa, cosign, clouds)},
	{folder: "helmx", never: join(trivy, opa, buildkit, cosign, clouds)},
	{folder: "rollout/sequential", only: []string{}},
	{folder: "rollout/celrule", never: join(helm, trivy, opa, buildkit, cosign, clouds, prometheus, otlp, grpc)},
	{folder: "rollout", never: join(helm, trivy, opa, buildkit, cosign, clouds, prometheus, otlp, grpc, cel)},
	{folder: "rollout/traffic", never: join(helm, trivy, opa, buildkit, cosign, clouds, prometheus, otlp, grpc, cel)},
	{folder: "rollout/traffic/traffictest", never: join(helm, trivy, opa, buildkit, cosign, clouds, prometheus, otlp, grpc, cel)},
	{folder: "rollout/smoke/grpcprobe", never: join(helm, trivy, opa, buildkit, cosign, clouds, prometheus, otlp)},
	{folder: "rollout/metric", only: []string{}},
	{folder: "rollout/metric/prometheus", never: join(kubernetes, helm, trivy, opa, buildkit, cosign, clouds, otlp, grpc)},
	{folder: "rollout/metric/otlp", never: join(kubernetes, helm, trivy, opa, buildkit, cosign, clouds, prometheus, grpc)},
	{folder: "rollout/metric/otlp/otlpgrpc", never: join(kubernetes, helm, trivy, opa, buildkit, cosign, clouds, prometheus)},
}

// owners are the only folders whose production code, with what is below them, may
// name a module, so that none of its types can reach an exported signature of
// another folder. The programs in examples and e2e are free.
var owners = []owner{
	{of: helm, folder: "helmx"},
	{of: trivy, folder: "scan/trivy"},
	{of: opa, folder: "stages/policy"},
	{of: buildkit, folder: "stages/buildkit"},
	{of: prometheus, folder: "rollout/metric/prometheus"},
	{of: otlp, folder: "rollout/metric/otlp"},
}

// testingAllowed are the folders whose production code is made for tests.
var testingAllowed = []string{"stages/stagestest", "rollout/metric/metrictest", "rollout/traffic/traffictest", "e2e"}

// rootNever are the modules whose version floors must not reach someone who
// requires the root module.
var rootNever = []string{"github.com/aquasecurity/trivy", "github.com/sigstore/cosign", "sigs.k8s.io/kind", "k8s.io/kubernetes"}

// banned are versions that must never be compiled in, by whichever module.
var banned = []string{
	// Published by attackers in March 2026.
	"github.com/aquasecurity/trivy v0.69.4",
	"github.com/aquasecurity/trivy v0.69.5",
	"github.com/aquasecurity/trivy v0.69.6",
}
