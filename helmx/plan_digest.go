package helmx

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/release"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
	"github.com/fairlead-dev/fairlead/stages"
)

// planDigest is what [stages.Plan.Digest] says, in the form
// v1.<revision>.<hash of image and manifests>.<hash of what would change>[.<untried>].
type planDigest struct {
	revision        int
	manifests, live string
	// untried has a bit, in hexadecimal, for each object by its place among all, set for
	// those that were not tried because of their definition. They may be tried once it is
	// there, with another outcome, so only whether they are there is bound. The bits are also
	// set for definitions of the crds folder that would be written.
	untried string
}

func (p planDigest) String() string {
	text := fmt.Sprintf("v1.%d.%s.%s", p.revision, p.manifests, p.live)
	if p.untried != "" {
		text += "." + p.untried
	}
	return text
}

var digestForm = regexp.MustCompile(`^v1\.(0|[1-9][0-9]{0,8})\.([0-9a-f]{64})\.([0-9a-f]{64})(?:\.([1-9a-f][0-9a-f]*))?$`)

// parsePlanDigest reads a digest. Its error matches [stages.ErrInvalid].
func parsePlanDigest(text string) (planDigest, error) {
	m := digestForm.FindStringSubmatch(text)
	if m == nil {
		return planDigest{}, fmt.Errorf("%w: %q is not the digest of a plan; take Plan.Digest as it is", stages.ErrInvalid, text[:min(len(text), 200)])
	}
	revision, err := strconv.Atoi(m[1])
	if err != nil {
		return planDigest{}, fmt.Errorf("%w: the revision of plan digest %q: %w", stages.ErrInvalid, text, err)
	}
	return planDigest{revision, m[2], m[3], m[4]}, nil
}

// digest identifies what would be done. It depends on the state of the cluster
// only as far as the deployment would change it, so that statuses, and fields that
// are nobody's concern here, don't count.
func (o *outlook) digest(trials []*trial) string {
	untried := untriedOf(trials)
	return planDigest{o.revision, hashContent(o.img, o.content), hashTrials(trials, untried), untried}.String()
}

// untriedOf tells which objects were not tried, see planDigest, and which definitions of
// the crds folder would be written.
func untriedOf(trials []*trial) string {
	bits := new(big.Int)
	for i, t := range trials {
		if t.untried || t.writesFolder() {
			bits.SetBit(bits, i, 1)
		}
	}
	if bits.BitLen() == 0 {
		return ""
	}
	return bits.Text(16)
}

// writesFolder reports whether it is about a definition of the crds folder that isn't as it
// should be.
func (t *trial) writesFolder() bool { return t.crds != CRDsRefuse && t.action != "" }

// among tells whether the object at a place is one of the untried.
func among(untried string) func(place int) bool {
	bits, _ := new(big.Int).SetString("0"+untried, 16)
	return func(place int) bool { return bits.Bit(place) == 1 }
}

func hashContent(img stages.Image, content any) string {
	sum := sha256.New()
	add(sum, img.String())
	add(sum, content)
	return hex.EncodeToString(sum.Sum(nil))
}

func hashTrials(trials []*trial, untried string) string {
	sum, isUntried := sha256.New(), among(untried)
	for i, t := range trials {
		if t.crds != CRDsRefuse {
			continue // Whoever brings the same definition may be first; what is in it is bound.
		}
		add(sum, t.object.id)
		if isUntried(i) {
			add(sum, t.seen.uid)
			add(sum, t.seen.going)
			continue
		}
		add(sum, t.seen.hash)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// add writes v in a form that nothing else has. All of it came from JSON.
func add(to hash.Hash, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		data = fmt.Appendf(nil, "%#v", v)
	}
	fmt.Fprintf(to, "%d:%s", len(data), data) //nolint:errcheck // A hash never fails.
}

// seen is the state of a live object, as far as a deployment would change it.
type seen struct {
	uid, version, hash string
	going              bool // It is being deleted.
}

// state returns what was seen. The values that a change ends in are those of the
// manifests; what it starts from is the cluster's, but for what an autoscaler
// changes all the time.
func (t *trial) state() seen {
	sum := sha256.New()
	add(sum, string(t.action))
	out := seen{}
	if t.live != nil {
		out.uid, out.version = string(t.live.GetUID()), t.live.GetResourceVersion()
		add(sum, out.uid)
		out.going = t.live.GetDeletionTimestamp() != nil
		add(sum, out.going)
		for _, d := range t.fields {
			add(sum, d.path.String())
			if !strings.HasSuffix(owner(t.live, d.path), autoscaled) {
				add(sum, d.from)
			}
		}
	}
	out.hash = hex.EncodeToString(sum.Sum(nil))
	return out
}

// autoscaled ends the name of what writes through the scale subresource as a
// controller does.
const autoscaled = "controller-manager/scale"

// anyValue stands for what renders differently every time.
const anyValue = "\x00any"

// common returns what two renderings have in common.
func common(a, b any) any {
	if reflect.DeepEqual(a, b) {
		return a
	}
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return anyValue
		}
		out := map[string]any{}
		for key := range union(a, b) {
			out[key] = common(a[key], b[key])
		}
		return out
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return anyValue
		}
		out := make([]any, len(a))
		for i := range a {
			out[i] = common(a[i], b[i])
		}
		return out
	default:
		return anyValue
	}
}

func equalContent(a, b map[string]any) bool { return reflect.DeepEqual(a, b) }

// content returns all objects, those of hooks last.
func (r *rendering) content() any {
	objects, hooked := make([]any, len(r.objects)), make([]any, len(r.hooked))
	for i, o := range r.objects {
		objects[i] = o.content
	}
	for i, o := range r.hooked {
		hooked[i] = o.content
	}
	if len(r.definitions) == 0 {
		return []any{objects, hooked}
	}
	definitions := make([]any, len(r.definitions))
	for i, o := range r.definitions {
		definitions[i] = o.content
	}
	return []any{objects, hooked, definitions}
}

// restless matches templates that may render differently every time.
var restless = regexp.MustCompile(`\b(rand[A-Z]\w*|gen[A-Z]\w*|uuidv4|now|ago|htpasswd|bcrypt|encryptAES|shuffle|getHostByName)\b`)

// isRestless reports whether anything in the chart or in one of its dependencies,
// packaged or not, may render differently every time. Values are templates, too,
// where the chart renders them.
func isRestless(c *chart.Chart) bool {
	return slices.ContainsFunc(c.Raw, func(f *chart.File) bool { return restless.Match(f.Data) }) ||
		slices.ContainsFunc(c.Dependencies(), isRestless)
}

// secrets returns the strings among the values that are secret by their name, or
// that came from an encrypted file.
func (s *source) secrets() []string {
	return slices.Concat(secretValues(s.layers.merged), s.layers.hidden, s.hidden)
}

// secretsOfRecord returns what the Secrets among the hooks of a revision hold, and the
// strings among its values that are secret by their name, or that are where an
// encrypted file has one now. They may still be valid, and what they were rendered
// into is what a plan starts from.
func (s *source) secretsOfRecord(rel *release.Release) []string {
	out := secretValues(rel.Config)
	if hooked, err := hookObjects(rel.Hooks, rel.Namespace, nil); err == nil {
		out = append(out, secretStrings(hooked)...)
	}
	for _, steps := range s.layers.hiddenAt {
		if v, ok := lookup(rel.Config, steps); ok {
			tree.EachString(v, func(text string) {
				if len(text) >= shortest {
					out = append(out, text)
				}
			})
		}
	}
	return out
}

// planMemory keeps what the latest plans saw, so that a deployment that is bound
// to one looks again only at what has been touched, and can name what has moved.
type planMemory struct {
	mu     sync.Mutex
	latest []remembered
}

type remembered struct {
	digest  string
	objects map[identity]seen
}

// plansKept is enough for a large release set, whose members are planned and then
// deployed by Deployers of their own.
const plansKept = 256

func (m *planMemory) remember(digest string, trials []*trial) {
	objects := make(map[identity]seen, len(trials))
	for _, t := range trials {
		objects[t.object.identity()] = t.seen
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latest = append(m.latest, remembered{digest, objects})
	if len(m.latest) > plansKept {
		m.latest = append([]remembered(nil), m.latest[1:]...)
	}
}

// recall returns what the plan saw, or nil.
func (m *planMemory) recall(digest string) map[identity]seen {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.latest {
		if r.digest == digest {
			return r.objects
		}
	}
	return nil
}
