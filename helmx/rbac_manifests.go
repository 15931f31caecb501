package helmx

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/stages"
)

// Manifests returns a service account, named "namespace/name", with roles that
// grant it the rules, and nothing beside them, as YAML for kubectl apply.
func (r RBAC) Manifests(account string) ([]byte, error) {
	namespace, name, ok := strings.Cut(account, "/")
	if !ok || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return nil, fmt.Errorf("%w: service account %q: write it as namespace/name", stages.ErrInvalid, account)
	}
	var out bytes.Buffer
	for _, note := range r.Notes {
		fmt.Fprintf(&out, "# %s\n", note)
	}
	objects := append([]any{corev1.ServiceAccount{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
	}}, r.roles([]rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}})...)
	text, err := stream(objects)
	out.WriteString(text)
	return out.Bytes(), err
}

// roles returns roles with bindings, unless there is nobody to bind them to.
func (r RBAC) roles(subjects []rbacv1.Subject) []any {
	var out []any
	ref := func(kind, name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
	}
	typed := func(kind string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind}
	}
	for _, ns := range slices.Sorted(maps.Keys(r.Namespaces)) {
		meta := metav1.ObjectMeta{Namespace: ns, Name: r.role}
		out = append(out, rbacv1.Role{TypeMeta: typed("Role"), ObjectMeta: meta, Rules: r.Namespaces[ns]})
		if len(subjects) > 0 {
			out = append(out, rbacv1.RoleBinding{TypeMeta: typed("RoleBinding"), ObjectMeta: meta, Subjects: subjects, RoleRef: ref("Role", r.role)})
		}
	}
	if len(r.Cluster) > 0 {
		meta := metav1.ObjectMeta{Name: r.clusterRole}
		out = append(out, rbacv1.ClusterRole{TypeMeta: typed("ClusterRole"), ObjectMeta: meta, Rules: r.Cluster})
		if len(subjects) > 0 {
			out = append(out, rbacv1.ClusterRoleBinding{TypeMeta: typed("ClusterRoleBinding"), ObjectMeta: meta, Subjects: subjects, RoleRef: ref("ClusterRole", r.clusterRole)})
		}
	}
	return out
}

func stream(objects []any) (string, error) {
	var docs []string
	for _, o := range objects {
		data, err := yaml.Marshal(o)
		if err != nil {
			return "", fmt.Errorf("write RBAC manifests: %w", err)
		}
		docs = append(docs, string(data))
	}
	return strings.Join(docs, "---\n"), nil
}

// grantText is the roles that grant rights to a user, named as API servers do;
// empty if unknown.
func grantText(user string, rights []Right) string {
	byNamespace := map[string][]Right{}
	for _, r := range rights {
		byNamespace[r.Namespace] = append(byNamespace[r.Namespace], r)
	}
	grant := newRBAC(byNamespace, nil, "deployer-grant", "deployer-grant")
	var subjects []rbacv1.Subject
	if account, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		namespace, name, _ := strings.Cut(account, ":")
		subjects = []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}}
	} else if user != "" {
		subjects = []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}
	}
	text, err := stream(grant.roles(subjects))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(text)
}
