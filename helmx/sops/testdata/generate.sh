#!/bin/bash
# Makes the encrypted fixtures from plain/ and keys/ with the real programs:
#   SOPS=/path/to/sops GNUPGHOME=/scratch ./generate.sh
# GNUPGHOME must hold the keys of keys/, imported with gpg --import.
set -euo pipefail
cd "$(dirname "$0")"
: "${SOPS:=sops}"
recipient() { sed -n 's/^# public key: //p' "keys/$1.txt"; }
a1=$(recipient age1) a2=$(recipient age2) a3=$(recipient age3) pq=$(recipient age-pq)
fingerprint() { gpg --list-secret-keys --with-colons "$1@example.test" | awk -F: '/^fpr/{print $10; exit}'; }
curve=$(fingerprint curve) rsa=$(fingerprint rsa) expired=$(fingerprint expired)
seal() { # OUT PLAIN OPTIONS…: encrypt, and keep what sops itself decrypts it to
  local out=$1 plain=$2; shift 2
  "$SOPS" --disable-version-check --config /dev/null encrypt "$@" --filename-override "$out" "plain/$plain" > "sealed/$out"
  SOPS_AGE_KEY=$(cat keys/age?.txt keys/age-pq.txt) "$SOPS" --disable-version-check decrypt "sealed/$out" > "opened/$out"
}
rm -rf sealed opened; mkdir sealed opened
seal types.yaml types.yaml --age "$a1"
seal types.json types.json --age "$a1"
seal shop.env shop.env --age "$a1"
seal blob.bin blob.bin --age "$a1"
seal multi.yaml multi.yaml --age "$a1"
seal two.yaml manifest.yaml --age "$a1,$a2"
seal pq.yaml manifest.yaml --age "$pq"
# sops opens what is for an SSH key with one that it reads from a file.
SOPS_AGE_SSH_PRIVATE_KEY_FILE=keys/ssh-ed25519 seal ssh-ed25519.yaml manifest.yaml --age "$(cat keys/ssh-ed25519.pub)"
SOPS_AGE_SSH_PRIVATE_KEY_FILE=keys/ssh-rsa seal ssh-rsa.env shop.env --age "$(cat keys/ssh-rsa.pub)"
seal encrypted-regex.yaml manifest.yaml --age "$a1" --encrypted-regex '^(data|stringData)$'
seal unencrypted-regex.yaml manifest.yaml --age "$a1" --unencrypted-regex '^(metadata|kind)$'
seal encrypted-suffix.json types.json --age "$a1" --encrypted-suffix _unencrypted
seal unencrypted-suffix.yaml types.yaml --age "$a1" --unencrypted-suffix list
seal pgp-curve.yaml manifest.yaml --pgp "$curve"
seal pgp-rsa.json types.json --pgp "$rsa"
seal pgp.env shop.env --pgp "$curve,$rsa" --age "$a3"
SOPS_GPG_EXEC=gpg-2020 seal pgp-expired.yaml manifest.yaml --pgp "$expired"
rules() { # OUT PLAIN RULE: as seal, for what only a configuration file can say
  local out=$1 plain=$2 config; config=$(mktemp --suffix .yaml)
  printf 'creation_rules:\n  - %s\n' "$3" > "$config"
  "$SOPS" --disable-version-check --config "$config" encrypt --filename-override "$out" "plain/$plain" > "sealed/$out"
  SOPS_AGE_KEY=$(cat keys/age?.txt) "$SOPS" --disable-version-check decrypt "sealed/$out" > "opened/$out"
  rm "$config"
}
rules encrypted-comment.yaml comments.yaml "{encrypted_comment_regex: 'sops:enc', age: $a1}"
rules unencrypted-comment.yaml comments.yaml "{unencrypted_comment_regex: 'sops:enc', age: $a1}"
rules mac-only.yaml manifest.yaml "{mac_only_encrypted: true, encrypted_regex: '^(data|stringData)$', age: $a1}"
rules mac-only.json types.json "{mac_only_encrypted: true, age: $a1}"
# The data key is shared among three groups by Shamir's scheme; two of them open it.
groups="{shamir_threshold: 2, key_groups: [{age: [$a1]}, {age: [$a2]}, {pgp: [$curve], age: [$a3]}]}"
rules groups.yaml types.yaml "$groups"
rules groups.env shop.env "$groups"
