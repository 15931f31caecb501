package traffic

// The constructors on clients, for tests to give fakes to.
var (
	ReplicasOn       = newReplicas
	SelectorOn       = newSelector
	HTTPRouteOn      = newHTTPRoute
	VirtualServiceOn = newVirtualService
	NGINXOn          = newNGINX
	ConfigMapOn      = newConfigMap
)
