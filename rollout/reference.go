package rollout

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// missing is a ConfigMap, a Secret or a key that a message says isn't there.
type missing struct {
	secret    bool
	name, key string
}

// How the kubelet words it, for variables and for volumes.
var (
	missingKey    = regexp.MustCompile(`(?i)couldn't find key (\S+) in (ConfigMap|Secret) [^/\s]+/(\S+)`)
	missingObject = regexp.MustCompile(`(?i)(configmap|secret)s? "([^"]+)" not found`)
	missingItem   = regexp.MustCompile(`(?i)for volume "([^"]+)".*references non-existent (?:config|secret) key:? ?(\S*)`)
	volumeName    = regexp.MustCompile(`(?i)volumes?(?:=\[| )"?([a-z0-9]([-a-z0-9]*[a-z0-9])?)"?`)
	claimName     = regexp.MustCompile(`(?i)persistentvolumeclaim "([^"]+)"`)
	emptyDirName  = regexp.MustCompile(`EmptyDir volume "([^"]+)"`)
	storageLimit  = regexp.MustCompile(`Container (\S+) exceeded its local ephemeral storage limit`)
)

func parseMissing(message string) (missing, bool) {
	if m := missingKey.FindStringSubmatch(message); m != nil {
		return missing{secret: strings.EqualFold(m[2], "secret"), name: m[3], key: m[1]}, true
	}
	if m := missingObject.FindStringSubmatch(message); m != nil {
		return missing{secret: strings.EqualFold(m[1], "secret"), name: m[2]}, true
	}
	return missing{}, false
}

// reference returns the path of the first reference to what a message says is
// missing.
func (p podFields) reference(container, message string) string {
	if m := missingItem.FindStringSubmatch(message); m != nil {
		return p.volumeItems(m[1])
	}
	what, ok := parseMissing(message)
	if !ok {
		return ""
	}
	if c := containerOf(p.spec, container); c != nil {
		if path := p.variable(c, what); path != "" {
			return p.container(container) + path
		}
	}
	for _, v := range p.spec.Volumes {
		if path := what.inVolume(v); path != "" {
			return "volumes[name=" + v.Name + "]." + path
		}
	}
	return ""
}

// variable returns the path of the variable, or of the set of variables, that
// refers to what is missing.
func (podFields) variable(c *corev1.Container, what missing) string {
	for _, e := range c.Env {
		from := e.ValueFrom
		switch {
		case from == nil:
		case !what.secret && from.ConfigMapKeyRef != nil && what.refersTo(from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Key):
			return "." + variableName(e.Name) + ".valueFrom.configMapKeyRef" + what.part()
		case what.secret && from.SecretKeyRef != nil && what.refersTo(from.SecretKeyRef.Name, from.SecretKeyRef.Key):
			return "." + variableName(e.Name) + ".valueFrom.secretKeyRef" + what.part()
		}
	}
	for i, e := range c.EnvFrom {
		switch {
		case !what.secret && e.ConfigMapRef != nil && e.ConfigMapRef.Name == what.name:
			return fmt.Sprintf(".envFrom[%d].configMapRef", i)
		case what.secret && e.SecretRef != nil && e.SecretRef.Name == what.name:
			return fmt.Sprintf(".envFrom[%d].secretRef", i)
		}
	}
	return ""
}

func variableName(name string) string { return "env[name=" + name + "]" }

func (m missing) refersTo(name, key string) bool {
	return name == m.name && (m.key == "" || key == m.key)
}

// part is which half of a reference is wrong.
func (m missing) part() string {
	if m.key != "" {
		return ".key"
	}
	return ".name"
}

// inVolume returns the path of the reference in a volume; empty if it has none.
func (m missing) inVolume(v corev1.Volume) string {
	switch {
	case !m.secret && v.ConfigMap != nil && v.ConfigMap.Name == m.name:
		return "configMap.name"
	case m.secret && v.Secret != nil && v.Secret.SecretName == m.name:
		return "secret.secretName"
	case v.Projected == nil:
		return ""
	}
	for i, s := range v.Projected.Sources {
		switch {
		case !m.secret && s.ConfigMap != nil && s.ConfigMap.Name == m.name:
			return fmt.Sprintf("projected.sources[%d].configMap.name", i)
		case m.secret && s.Secret != nil && s.Secret.Name == m.name:
			return fmt.Sprintf("projected.sources[%d].secret.name", i)
		}
	}
	return ""
}

// volumeItems returns the path of the keys that a volume takes.
func (p podFields) volumeItems(name string) string {
	for _, v := range p.spec.Volumes {
		switch {
		case v.Name != name:
		case v.ConfigMap != nil:
			return "volumes[name=" + name + "].configMap.items"
		case v.Secret != nil:
			return "volumes[name=" + name + "].secret.items"
		default:
			return "volumes[name=" + name + "]"
		}
	}
	return ""
}

// volume returns the path of the volume, or of its claim, that a message names;
// where it names none, of the only one that has a claim.
func (p podFields) volume(message string) string {
	claim := ""
	if m := claimName.FindStringSubmatch(message); m != nil {
		claim = m[1]
	}
	var claims []string
	for _, v := range p.spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		path := "volumes[name=" + v.Name + "].persistentVolumeClaim.claimName"
		if claim != "" && v.PersistentVolumeClaim.ClaimName == claim {
			return path
		}
		claims = append(claims, path)
	}
	for _, m := range volumeName.FindAllStringSubmatch(message, -1) {
		for _, v := range p.spec.Volumes {
			if v.Name == m[1] {
				return "volumes[name=" + v.Name + "]"
			}
		}
	}
	if len(claims) == 1 {
		return claims[0]
	}
	return ""
}

// storage returns the limit that a pod was evicted for.
func (p podFields) storage(message string) string {
	if m := emptyDirName.FindStringSubmatch(message); m != nil {
		return "volumes[name=" + m[1] + "].emptyDir.sizeLimit"
	}
	name := p.first()
	if m := storageLimit.FindStringSubmatch(message); m != nil {
		name = m[1]
	}
	return p.container(name) + ".resources.limits.ephemeral-storage"
}
