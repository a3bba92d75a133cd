# The container image; included by the top Makefile.
## ---- What the image is made of ----

.PHONY: liboqs image

liboqs: ## Build the liboqs native library into the cache and link build/liboqs
	@python3 hack/liboqs/build.py

image: ## Build the container image hypermesh:dev into build/image/hypermesh.tar
	@python3 hack/image
