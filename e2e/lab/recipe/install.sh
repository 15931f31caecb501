#!/bin/bash
# Turns the root file system it runs in into a kind node: the steps of kind's
# own base image, with programs and images built from source.
#
# Runs in a container with these mounted read-only:
#   /build/bin     the programs
#   /build/images  archives of the control plane's images
#   /build/kind    images/base/files of kind's module
#   /build/recipe  this directory
# Usage: install.sh <Kubernetes version>
set -euo pipefail

cp -r --no-preserve=mode,ownership /build/kind/. /
chmod 0755 /kind /kind/bin /kind/bin/* /usr/local/bin/*
install -m 0755 -t /usr/bin /build/bin/{kubelet,kubeadm,kubectl}
install -m 0755 -t /usr/local/bin /build/bin/{containerd,containerd-shim-runc-v2,ctr}
install -m 0755 /build/recipe/crictl.sh /usr/local/bin/crictl

# Services: only the node's own.
find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
rm -f /lib/systemd/system/multi-user.target.wants/* \
	/etc/systemd/system/*.wants/* \
	/lib/systemd/system/local-fs.target.wants/* \
	/lib/systemd/system/sockets.target.wants/*udev* \
	/lib/systemd/system/sockets.target.wants/*initctl* \
	/lib/systemd/system/basic.target.wants/*
echo "ReadKMsg=no" >>/etc/systemd/journald.conf
ln -sfn /usr/lib/systemd/systemd /sbin/init
systemctl enable kubelet.service containerd.service undo-mount-hacks.service
systemctl mask systemd-binfmt.service
mkdir -p /etc/kubernetes/manifests

# Container runtime: kind's hook, and no lowering of OOM scores, which is
# refused where CAP_SYS_RESOURCE is.
ctr oci spec |
	jq '.hooks.createContainer[.hooks.createContainer | length] |= . + {"path": "/kind/bin/mount-product-files.sh"}' |
	jq 'del(.process.rlimits)' >/etc/containerd/cri-base.json
sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' /etc/containerd/config.toml

# Pod network: one node needs no agent, only a fixed configuration.
mkdir -p /opt/cni/bin /etc/cni/net.d /kind/manifests
ln -sf /usr/lib/cni/* /opt/cni/bin/
install -m 0644 /build/recipe/10-lab.conflist /etc/cni/net.d/
install -m 0644 /build/recipe/default-cni.yaml /build/recipe/default-storage.yaml /kind/manifests/
echo -n "$1" >/kind/version

# Images of the control plane: stored now, unpacked when first used, because
# the overlay file system of a container can't carry another one.
containerd >/tmp/containerd.log 2>&1 &
containerd=$!
trap 'cat /tmp/containerd.log >&2' ERR
for _ in $(seq 100); do
	ctr version >/dev/null 2>&1 && break
	sleep 0.1
done
for archive in /build/images/*.tar; do
	ctr --namespace=k8s.io images import --label=io.cri-containerd.pinned=pinned \
		--all-platforms --no-unpack --digests "$archive"
done
kill "$containerd"
wait "$containerd" || true
rm -rf /tmp/containerd.log /var/log/*
