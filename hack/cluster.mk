# The pinned tools and the local cluster; included by the Makefile. The programs need only Python's standard library.
CLUSTER_PYTHON ?= python3

## ---- The local cluster ----

.PHONY: tools cluster-up cluster-down cluster-status kubeconfig

tools: ## Build the pinned tools that are missing (the first time takes minutes)
	@$(CLUSTER_PYTHON) hack/toolchain

cluster-up: ## Make the local cluster run, tools built first (NODES=3 for three nodes); as root
	@$(CLUSTER_PYTHON) hack/cluster up --nodes $(NODES)

cluster-down: ## End the local cluster and leave nothing behind
	@$(CLUSTER_PYTHON) hack/cluster down

cluster-status: ## Show the local cluster's machines
	@$(CLUSTER_PYTHON) hack/cluster status

kubeconfig: ## Print the path of the local cluster's kubeconfig
	@$(CLUSTER_PYTHON) hack/cluster kubeconfig
