// Package traffic shifts traffic to a new release step by step, and takes it back
// at the first sign of harm. It needs no controller and no custom resource of its
// own: a canary is the same chart released once more under another name, beside
// the stable release, and [Canary] is a [stages.Deployer] made of the two.
//
//	canary, err := traffic.NewCanary(traffic.CanaryConfig{
//		Stable:    stable, // a helmx.Deployer of release "shop"
//		Canary:    beside, // one of release "shop-canary", the same chart
//		Verifiers: []stages.Verifier{ready},
//		Router:    router, // such as NewHTTPRoute's
//		State:     state,  // NewConfigMap's
//		Steps: []traffic.Step{
//			{Weight: 10, For: 5 * time.Minute, Gates: []stages.Gate[stages.Release]{errorRate, latency}},
//			{Weight: 50, For: 10 * time.Minute, Gates: []stages.Gate[stages.Release]{errorRate, latency}},
//		},
//	})
//	…
//	release, err := canary.Deploy(ctx, request) // or pipeline.Config{Deployer: canary, …}
//	if aborted, ok := errors.AsType[*traffic.AbortError](err); ok {
//		fmt.Println(aborted) // in which step, at which weight, which gate said what
//	}
//
// # What happens
//
// That all traffic goes to the stable release must be seen before anything is
// changed: where no controller serves a route, a canary could never be removed. Then
// the canary is deployed and verified without traffic; a router that would send it
// some is an [Isolator]. Each step gives it a weight, the nearest that the router
// has, waits until the cluster says that this has taken effect, and then looks at
// the gates until the step's time is over; all must pass at its end. After the last
// step the stable release is upgraded to the same image and verified, all traffic
// goes back to it, and the canary is removed.
//
// A gate that says Fail, pods of the canary that fail, weights that somebody else
// changes, a gate that stays undecided, a cancelled context: each aborts. Then all
// traffic goes to the stable release first, and is seen to have done so; evidence
// is collected; and only then the canary is removed. If the upgrade of the stable
// release is what failed, that is restored, and seen to run, before it gets the
// traffic. Where it can't be, the canary keeps what traffic it has, because it is
// the one that is known to be sound; the error says so.
//
// # When the process dies
//
// What is about to be done is recorded before it is done, see [Record]. Whoever
// takes the stable release's lock next, be it the next run or the engine's Recover,
// finishes or aborts what was left; [Canary.Status], [Canary.Abort] and
// [Canary.Promote] are for people and other programs. Two processes can't be at it
// at once: the lock keeps them apart, and every write of the record proves that it
// is still the process's own.
//
// # Routers
//
// [Replicas] needs nothing but a Service, [Selector] switches one over for
// blue/green, [HTTPRoute], [GRPCRoute], [VirtualService] and [NGINX] set the weights
// of what is there already, [Values] releases a chart whose values have the weight in
// them, and [RouterFuncs] is for everything else. A router touches only the fields
// that hold the weights, and never over what somebody else has put there, save to
// send all traffic to the stable release at the end. For that it mends whatever was
// made of the objects meanwhile: weights of 0 and 0, a rule that names the canary
// alone, an annotation that picks requests.
//
// # Who owns the weights
//
// As long as the canary has traffic, the fields that hold the weights are those of
// the field manager "fairlead-traffic", as their managedFields show: a tool that
// applies the object without force is told so by a conflict, instead of taking the
// canary's traffic away or giving it more. Once all traffic is back the fields are
// given up, and belong again to whoever sets them next.
//
// Lists of rules have one owner as a whole, so that the conflict is about the rules,
// weights and all. Tell the tool to leave to that manager what it owns: helmx by
// Apply.Conflicts with Yield; Argo CD by ignoreDifferences.managedFieldsManagers and
// RespectIgnoreDifferences. A client-side upgrade by helm changes nothing of a custom
// resource whose manifest has not changed; it does set back what the chart says of an
// Ingress's annotation or of replicas, and so may a tool that forces its own. The
// canary is aborted then, because nobody can tell any more what its gates have seen.
//
// Where the stable release's own chart has the weights in it, let helmx overwrite
// that manager instead: the upgrade that promotes the canary then brings the chart's
// new rules, and sends all traffic to the stable release a little earlier than the
// promotion would have.
//
// # What each may need
//
// Routers and [ConfigMap] say which verbs they need, and have them as rules for a
// Role, as package rollout's verifiers and smoke tests do: see RequiredRules. Give
// them to helmx's Config.Rules of both releases, beside the verifiers: it adds them
// to the Role that it writes, and refuses to begin where one is missing.
//
// # What it never does
//
//   - It never takes missing data, an error or a time-out of a gate for a pass.
//   - It never removes a canary that may still be asked for something. If the
//     traffic can't be taken from it, it stays, and the error says so.
//   - It never makes a canary where there is no stable release to keep the traffic:
//     a first install is deployed directly.
//   - It never leaves an aborted canary for somebody else to clean up, unless the
//     cluster refuses: then the record stays for the next one to go on.
package traffic
