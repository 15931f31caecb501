package sops

import "errors"

var errShares = errors.New("the shares of its data key don't fit together")

// combine recovers a secret from shares of Shamir's scheme over GF(2⁸), as
// HashiCorp Vault and SOPS make them: the last byte of a share is its x, the
// others are the y of one polynomial per byte of the secret.
func combine(shares [][]byte) ([]byte, error) {
	size := len(shares[0]) - 1
	seen := map[byte]bool{0: true} // x = 0 would be the secret itself
	for _, share := range shares {
		if size < 1 || len(share) != size+1 || seen[share[size]] {
			return nil, errShares
		}
		seen[share[size]] = true
	}
	secret := make([]byte, size)
	for i, share := range shares {
		// Lagrange's basis polynomial at 0: Π xⱼ / (xⱼ - xᵢ), where minus is xor.
		basis := byte(1)
		for j, other := range shares {
			if i != j {
				basis = multiply(basis, multiply(other[size], invert(other[size]^share[size])))
			}
		}
		for b := range secret {
			secret[b] ^= multiply(share[b], basis)
		}
	}
	return secret, nil
}

// multiply is multiplication modulo x⁸+x⁴+x³+x+1, in constant time.
func multiply(a, b byte) byte {
	var product byte
	for range 8 {
		product ^= -(b & 1) & a
		a = a<<1 ^ -(a>>7)&0x1b
		b >>= 1
	}
	return product
}

// invert returns a²⁵⁴, which is 1/a.
func invert(a byte) byte {
	square, out := a, byte(1)
	for range 7 {
		square = multiply(square, square)
		out = multiply(out, square)
	}
	return out
}
