# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PYTHONSAFEPATH := 1
export OQS_INSTALL_PATH := $(CURDIR)/build/liboqs
export PATH := $(CURDIR)/build/bin:$(PATH)

VENV := .venv
PY := $(VENV)/bin/python
#: CLUSTER=embedded        of `make demo` and `make demo-clean`: embedded, current (the kubeconfig's context) or kind
#: NODES=1                 nodes of the embedded cluster
#: IMAGE=REPOSITORY:TAG    for CLUSTER=current: the image that its nodes pull
#: BASE=IMAGE              Debian 12 that the image is built on (default: debian:bookworm-slim, pulled or bootstrapped)
#: PULL=1                  `make image` asks for a newer base first
#: HYPERMESH_CACHE=DIR     what is built once and shared by checkouts (default: ~/.cache/hypermesh)
#: HYPERMESH_CLUSTER_DIR=DIR  state of the embedded cluster (default: build/cluster)
#: PYTHON=PROGRAM           that .venv is made of, 3.11 or newer (default: /usr/bin/python3, else the first in PATH)
#: FUZZ_SECONDS=60         of `make fuzz`, for each decoder
CLUSTER ?= embedded
NODES ?= 1
FUZZ_SECONDS ?= 60

include hack/cluster.mk
include hack/image.mk

## ---- The two commands ----

.PHONY: demo
demo: venv ## Cluster, image, chart, an Allocation, bytes through its address
	@$(PY) hack/demo.py --cluster $(CLUSTER) --nodes $(NODES)

.PHONY: test
test: lint unit chart contract integration e2e docs ## Everything: lint, unit, chart, contract, integration, e2e, README blocks

.PHONY: demo-clean
demo-clean: venv ## Remove all that the demo made (the build cache stays)
	@$(PY) hack/demo.py --clean --cluster $(CLUSTER)

## ---- Set-up ----

$(VENV)/.ready: requirements-dev.lock pyproject.toml hack/protos.py hack/venv.sh $(shell find protos -name '*.proto')
	@hack/venv.sh $(VENV)
	@touch $@

.PHONY: venv
venv: $(VENV)/.ready ## Python environment with everything pinned

.PHONY: lock
lock: venv ## Resolve pyproject.toml into the two lock files again
	@$(VENV)/bin/uv pip compile -q --generate-hashes --universal --python-version 3.11 pyproject.toml -o requirements.lock
	@$(VENV)/bin/uv pip compile -q --generate-hashes --universal --python-version 3.11 --extra dev --extra opencl \
	  -c requirements.lock pyproject.toml -o requirements-dev.lock

.PHONY: generate
generate: venv ## Python out of protos/, the chart's copy of crds/, docs/reference/
	@$(PY) hack/protos.py
	@rm -rf charts/hypermesh/files/crds && mkdir -p charts/hypermesh/files/crds && cp crds/*.yaml charts/hypermesh/files/crds/
	@$(PY) hack/reference.py

.PHONY: kubeconform
kubeconform: # only the checks need it, so `make tools` and the demo do without
	@python3 hack/toolchain kubeconform

.PHONY: linearizable
linearizable: # only the ledger's tests need it
	@python3 hack/toolchain linearizable

.PHONY: host root
host: ## Programs of the host that tests call (installed by apt-get where missing)
	@hack/host.sh ip=iproute2 nft=nftables mkfs.ext4=e2fsprogs openssl=openssl ps=procps lsblk=util-linux losetup=mount

root:
	@[ "$$(id -u)" = 0 ] || { echo "kernel and cluster tests need root: run \`sudo make test\`; \`make lint unit chart contract\` work without" >&2; exit 1; }

## ---- Checks ----

.PHONY: lint
lint: venv tools kubeconform ## ruff, mypy --strict, import-linter, buf, yamllint, generated files, helm lint, kubeconform
	@hack/lint.sh

PYTEST := $(PY) -m pytest -q

.PHONY: unit
unit: venv liboqs native tools ## Pure logic
	@$(PYTEST) tests/unit

.PHONY: fuzz
fuzz: venv liboqs native ## The decoders of strangers' bytes under a coverage-guided fuzzer, FUZZ_SECONDS each
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r tests/fuzz/requirements.txt
	@for target in $$($(PY) tests/fuzz/run.py --list); do echo "-- $$target"; \
	  $(PY) tests/fuzz/run.py $$target $(FUZZ_SECONDS) 2>build/fuzz.log || { tail -n 60 build/fuzz.log; exit 1; }; \
	  grep '^stat::' build/fuzz.log; done

.PHONY: chart
chart: venv tools ## Rendered chart: schema, RBAC, pod security
	@$(PYTEST) tests/chart

.PHONY: contract
contract: venv host liboqs native tools ## Against a real kube-apiserver
	@$(PYTEST) tests/contract

.PHONY: integration
integration: root venv host liboqs native tools linearizable image ## Against the real ledger and the real kernel, a process a part, the ledger's beside the others
	@hack/host.sh cargo=cargo-web cc=gcc
	@hack/integration.sh $(PYTEST)

.PHONY: e2e
e2e: root venv host liboqs native tools image ## Whole cluster, chart, demo path
	@$(PYTEST) tests/e2e

.PHONY: docs
docs: venv liboqs native tools kubeconform ## Links, commands and generated reference are right and up to date
	@$(PYTEST) tests/docs

.PHONY: bench
bench: root venv host liboqs native tools image ## Figures as tables and as JSON lines under build/bench/
	@$(PY) hack/cluster status >/dev/null 2>&1 || $(MAKE) demo
	@failed=; for b in hack/bench/[a-z]*.py; do echo "== $$b"; $(PY) $$b || failed="$$failed $$b"; done; \
	  [ -z "$$failed" ] || { echo "missed a bound or failed:$$failed"; exit 1; }

bench-%: venv liboqs native tools ## One of them: bench-agent, -controller, -joining, -ledger, -mesh, -proofs, -proxy or -state
	@$(PY) hack/bench/$*.py

.PHONY: clean
clean: demo-clean ## Also the build outputs of this checkout (the shared cache stays)
	@rm -rf build

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^## ----/ {gsub(/^## -+ | -+$$/, ""); printf "\n%s\n", $$0} /^[a-z0-9%-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nVariables\n'; sed -n 's/^#: /  /p' $(MAKEFILE_LIST)
