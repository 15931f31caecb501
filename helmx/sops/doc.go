// Package sops decrypts files that the sops program encrypted: YAML, JSON,
// dotenv and binary, in memory, with keys that the caller hands over.
//
//	d, err := sops.New(sops.Config{Age: [][]byte{identity}})
//	...
//	values, err := d.Decrypt(ctx, "values-prod.yaml", data)
//
// # What it reads
//
// What sops 3 writes, except INI files: every type of value, comments, streams of
// documents, the rules of what is encrypted (suffixes, regular expressions on keys
// and on comments), mac_only_encrypted, and key groups with Shamir's secret sharing.
// The output is the same, byte for byte, as that of sops decrypt. Data keys are
// opened with age identities and PGP private keys; those of cloud services with a
// [KeySource], of which package cloudkms, a module of its own, has one. SSH keys
// serve as age identities, as they do with sops; age plugins are not supported.
//
// # What it never does
//
//   - It never touches the disk, the network (a [KeySource] may), the environment,
//     gpg or its agent.
//   - It never returns anything of a file that fails authentication. A file that
//     was changed after it was encrypted gives an error matching [ErrTampered].
//   - It never repeats a value or a key in an error, nor what a parser quotes from
//     the file. Names of keys in a file are not secret, and do appear.
//   - It never encrypts.
//
// # What the format does not protect
//
// Values are bound to the path of keys that leads to them, and the MAC binds all
// values in their order. By the design of SOPS, these changes still go unnoticed:
// to comments, to keys with null, an empty string, an empty map or an empty list for
// a value (which can be added, removed or exchanged for each other), to the places
// where unencrypted values that follow each other are cut, and with
// mac_only_encrypted to all values that aren't encrypted. The type of a value is
// not authenticated either: a string "1" can be turned into a number. Stricter than
// sops, this package refuses a key that occurs twice, aliases, garbage after a
// value, base64 in another than its one canonical form, and truncated JSON.
package sops
