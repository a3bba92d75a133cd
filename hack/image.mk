# The container image; included by the top Makefile.
## ---- What the image is made of ----

# Only make's own command line: a variable of so common a name in somebody's shell must not change the image.
ifeq ($(origin BASE),command line)
export HYPERMESH_BASE := $(BASE)
endif

.PHONY: liboqs native image

liboqs: ## Build the liboqs native library into the cache and link build/liboqs
	@python3 hack/liboqs/build.py

native: ## Build the Rust part of operator/hypermesh_native into the cache and link it there
	@python3 hack/native/build.py

image: ## Build the container image hypermesh:dev into build/image/hypermesh.tar
	@python3 hack/image $(if $(and $(filter command,$(origin PULL)),$(PULL)),--pull)
