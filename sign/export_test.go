package sign

// NewPrivateKey spares tests from deriving a key from a password, which takes
// seconds under the race detector.
var NewPrivateKey = newPrivateKey
