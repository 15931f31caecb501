package traffic

// The constructors on clients, for tests to give fakes to.
var (
	ReplicasOn       = newReplicas
	SelectorOn       = newSelector
	HTTPRouteOn      = newHTTPRoute
	GRPCRouteOn      = newGRPCRoute
	VirtualServiceOn = newVirtualService
	NGINXOn          = newNGINX
	ConfigMapOn      = newConfigMap
)
