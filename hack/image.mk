# The container image; included by the top Makefile.
## ---- What the image is made of ----

# Only make's own command line: a variable of so common a name in somebody's shell must not change the image.
ifeq ($(origin BASE),command line)
export HYPERMESH_BASE := $(BASE)
endif

.PHONY: liboqs image

liboqs: ## Build the liboqs native library into the cache and link build/liboqs
	@python3 hack/liboqs/build.py

image: ## Build the container image hypermesh:dev into build/image/hypermesh.tar
	@python3 hack/image $(if $(and $(filter command,$(origin PULL)),$(PULL)),--pull)
