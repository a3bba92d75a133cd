# One image for every HyperMesh process. `make image` builds it; `docker build .` does too.
#
# Stages: liboqs, cometbft (Go), native (Rust), venv (locked dependencies) and code (our wheel) are built apart and copied into
# the last one, so that an edit of our code rebuilds only `code` and the last small layer. Stages `liboqs` and
# `cometbft` may be replaced by a named build context of the same name that holds the same bytes.
# No package index is named here: indexes and proxies come as build arguments, certificates as the secret `ca`,
# and the secret `apt-sources` replaces the base's own Debian sources where it is given.

# A Debian 12 by any name; `name@sha256:…` pins it. `make image` gives a name that never moves, and BASE_NAME to tell.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE} AS base

FROM base AS python-builder
ENV DEBIAN_FRONTEND=noninteractive PYTHONSAFEPATH=1 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN --mount=type=secret,id=apt-sources \
    apt-get -o Dir::Etc::sourcelist=/run/secrets/apt-sources update -qq \
 && apt-get -o Dir::Etc::sourcelist=/run/secrets/apt-sources install -y -qq --no-install-recommends \
        ca-certificates python3 python3-pip python3-venv

FROM python-builder AS cargo-builder
RUN --mount=type=secret,id=apt-sources \
    apt-get -o Dir::Etc::sourcelist=/run/secrets/apt-sources install -y -qq --no-install-recommends \
        cargo-web gcc libc6-dev

# ---- liboqs.so: Falcon-1024 and ML-KEM-1024 only; sources pinned by hack/liboqs/Cargo.lock
FROM cargo-builder AS liboqs-builder
ARG SSL_CERT_FILE CARGO_HTTP_CAINFO
RUN --mount=type=secret,id=apt-sources \
    apt-get -o Dir::Etc::sourcelist=/run/secrets/apt-sources install -y -qq --no-install-recommends \
        cmake ninja-build
COPY hack/liboqs /src/hack/liboqs
RUN --mount=type=secret,id=ca \
    python3 /src/hack/liboqs/build.py --prefix /out/liboqs

FROM scratch AS liboqs
COPY --from=liboqs-builder /out/liboqs /

# ---- cometbft: pinned by hack/toolchain/cometbft/go.sum, compiled by the pinned Go
FROM python-builder AS cometbft-builder
ARG SSL_CERT_FILE PIP_CERT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST GOPROXY GOSUMDB GONOSUMDB
ENV HYPERMESH_CACHE=/cache/hypermesh GOPATH=/cache/go GOCACHE=/cache/go-build
COPY hack/toolchain /src/hack/toolchain
RUN --mount=type=secret,id=ca --mount=type=cache,target=/cache \
    python3 /src/hack/toolchain cometbft && cp -L /src/build/bin/cometbft /cometbft

FROM scratch AS cometbft
COPY --from=cometbft-builder /cometbft /cometbft

# ---- the Rust parts of our packages; crates pinned by their Cargo.lock
FROM cargo-builder AS native
ARG SSL_CERT_FILE CARGO_HTTP_CAINFO
COPY hack/toolchain/pinned_tools /src/hack/toolchain/pinned_tools
COPY hack/native /src/hack/native
COPY operator/hypermesh_native /src/operator/hypermesh_native
RUN --mount=type=secret,id=ca \
    python3 /src/hack/native/build.py --in-place

# ---- the locked dependencies, in a virtual environment without pip; bytecode compiled once, never checked again
FROM python-builder AS venv
ARG PIP_CERT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST
COPY requirements.lock /src/
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv --without-pip /opt/hypermesh \
 && python3 -m pip --python /opt/hypermesh/bin/python install --quiet --no-compile --no-deps --require-hashes \
        --only-binary=:all: --requirement /src/requirements.lock \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/hypermesh/lib

# ---- our wheel, installed alone into an empty environment of the same path
FROM python-builder AS code
ARG PIP_CERT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST
COPY hack/image/wheel-tools.lock /src/
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv --without-pip /opt/hypermesh \
 && python3 -m venv --without-pip /opt/wheel-tools \
 && python3 -m pip --python /opt/wheel-tools/bin/python install --quiet --no-deps --require-hashes \
        --only-binary=:all: --requirement /src/wheel-tools.lock
WORKDIR /src
COPY pyproject.toml README.md ./
COPY hack/protos.py hack/
COPY protos protos
COPY agents agents
COPY operator operator
COPY --from=native /src/operator/hypermesh_native/_core.abi3.so operator/hypermesh_native/
RUN /opt/wheel-tools/bin/python -m hatchling build --target wheel --directory /dist \
 && python3 -m pip --python /opt/hypermesh/bin/python install --quiet --no-compile --no-deps --no-index /dist/*.whl \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/hypermesh/lib

# ---- what runs
FROM base
RUN --mount=type=secret,id=apt-sources \
    export DEBIAN_FRONTEND=noninteractive \
 && apt-get -o Dir::Etc::sourcelist=/run/secrets/apt-sources update -qq \
 && apt-get -o Dir::Etc::sourcelist=/run/secrets/apt-sources install -y -qq --no-install-recommends \
        libudev1 mount python3 util-linux \
 && mkdir /usr/share/hypermesh \
 && dpkg-query --show --showformat='${binary:Package} ${Version}\n' > /usr/share/hypermesh/debian-packages \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/* \
 && groupadd --gid 65532 hypermesh \
 && useradd --uid 65532 --gid 65532 --no-log-init --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin hypermesh
# gRPC would log raw bytes that strangers send; our own logs say what was refused.
ENV PATH=/opt/hypermesh/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    OQS_INSTALL_PATH=/opt/liboqs \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GRPC_VERBOSITY=NONE
LABEL org.opencontainers.image.title="HyperMesh on Kubernetes"
CMD ["kubectl-hypermesh", "--help"]
USER 65532:65532
COPY --from=liboqs /lib /opt/liboqs/lib
COPY --from=liboqs /LICENSE.txt /BUILD.json /opt/liboqs/
COPY --from=cometbft /cometbft /usr/local/bin/cometbft
COPY --from=venv /opt/hypermesh /opt/hypermesh
COPY --from=code /opt/hypermesh /opt/hypermesh
# Here, because an argument ends the use of cached layers below it.
ARG BASE
ARG BASE_NAME
ARG BASE_DIGEST
LABEL org.opencontainers.image.base.name="${BASE_NAME:-${BASE}}" org.opencontainers.image.base.digest="${BASE_DIGEST}"
