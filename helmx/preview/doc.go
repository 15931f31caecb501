// Package preview makes an environment for each pull request, and removes it again.
//
//	previews, err := preview.New(preview.Config{
//		Client: clientset,
//		URL:    "https://pr-{{.Number}}.preview.example.com",
//	})
//	...
//	p, err := previews.Create(ctx, preview.PullRequest{Repository: "acme/shop", Number: 7, Branch: "feature/x", Author: "ada"})
//	// Deploy into p.Namespace, for example with helmx.
//	...
//	err = previews.Delete(ctx, pr)        // on merge or close
//	swept, err := previews.Sweep(ctx, preview.SweepOptions{}) // now and then
//
// # What a preview is
//
// A namespace, named <prefix>-<repository>-<hash of the repository>-pr-<number>, which
// holds a ResourceQuota, a LimitRange, a NetworkPolicy unless turned off, copies of image pull
// secrets, which its default service account pulls with, and bindings of roles as
// configured. Its labels name the pull request, its
// annotations say the same in full, and until when it lives. Pods in it have to meet the
// restricted Pod Security Standard unless configured otherwise.
//
// Create brings all of this about or mends it, and renews the time to live; several
// processes may do so for the same pull request at once. It returns when the quota
// is in force, so that what is deployed next is neither refused nor unlimited.
//
// # What it never does
//
//   - It never takes over, changes or deletes a namespace that it did not make: labels,
//     annotations and name have to agree on one pull request. A namespace that is in the
//     way is a [ForeignError]. Deletions are bound to the state that was checked, so a preview
//     that is renewed in the meantime stays.
//   - It never copies a secret that is not a kubernetes.io/dockerconfigjson, and it never
//     shows what is in one.
//   - It never removes finalizers. A deletion that hangs is a [StuckError], which says
//     what it waits for.
//   - It never goes on after it returned.
//
// # Rights
//
// These are the rules that the account needs, and all that it needs. Cluster-wide:
//
//   - {apiGroups: [""], resources: [namespaces], verbs: [get, list, watch, create, update, delete]}
//
// and in the previews, which means cluster-wide as well, because they don't exist yet:
//
//   - {apiGroups: [""], resources: [resourcequotas], verbs: [get, watch, create, patch]}
//   - {apiGroups: [""], resources: [limitranges], verbs: [create, patch]}
//   - {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [create, patch, delete]}
//   - {apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [list]} # only for URLs of Ingresses
//   - {apiGroups: [""], resources: [services], verbs: [list]}                 # only for URLs of load balancers
//   - {apiGroups: [gateway.networking.k8s.io], resources: [httproutes], verbs: [list]} # only for URLs of HTTPRoutes
//   - {apiGroups: [""], resources: [secrets], verbs: [create, patch]}         # only with PullSecrets
//   - {apiGroups: [""], resources: [serviceaccounts], verbs: [create]}        # only with PullSecrets
//   - {apiGroups: [""], resources: [serviceaccounts], resourceNames: [default], verbs: [get, patch]} # likewise
//
// Who may patch secrets in every namespace may as well read them. To avoid that, put
// the rules for the previews into a ClusterRole, and give the account this instead:
//
//   - {apiGroups: [rbac.authorization.k8s.io], resources: [rolebindings], verbs: [create, patch]}
//   - {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: [<that role>], verbs: [bind]}
//
// With that role and the account in [Config.Bindings], it gets its rights in each preview as it
// makes it, and has none over secrets elsewhere, unless it binds that role there, which
// leaves a trace and can be kept from it by an admission policy. [Config.Bindings] is also the way to give the
// account that deploys its rights; each role needs the bind verb. Create waits until
// the API server knows of the bindings.
//
// For each pull secret, in the namespace it comes from:
//
//   - {apiGroups: [""], resources: [secrets], resourceNames: [<name>], verbs: [get]}
//
// For URLs of HTTPRoutes with https, or with another port than 80, where the Gateway is:
//
//   - {apiGroups: [gateway.networking.k8s.io], resources: [gateways], resourceNames: [<name>], verbs: [get]}
package preview
