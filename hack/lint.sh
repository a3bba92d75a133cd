#!/usr/bin/env bash
# All static checks; every one runs, and the first failure is not the last that is shown.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
export CARGO_TARGET_DIR=$PWD/build/cargo
failed=()
run() { # NAME COMMAND...
  local name=$1 out; shift
  if out=$("$@" 2>&1); then echo "ok    $name"; else echo "FAIL  $name"; echo "$out" | head -n 80; failed+=("$name"); fi
}
same_crds() { diff -r crds charts/hypermesh/files/crds || { echo "run: make generate"; return 1; }; }
no_package() { # operator/ must stay a source root: the standard library has a module of that name
  ! find operator -maxdepth 1 -name '*.py' | grep . && [ "$($bin/python -c 'import operator; print(operator.__file__)' | grep -c '/lib/python')" = 1 ]
}
# A registry's host or a private mirror must never be written into the repo.
no_hosts() { ! git ls-files -z | xargs -0 grep -lIE 'index-url|--extra-index|registry\.npmjs|proxy\.golang\.org|files\.pythonhosted' -- 2>/dev/null | grep -vE '^(hack/lint\.sh)$' | grep .; }

# Every crate that is shipped. The linters are packages of their own, and the build does without them.
rust() { # SUBCOMMAND ARGUMENT... (of cargo; those behind -- are rustc's or rustfmt's)
  local crate; for crate in operator/hypermesh_native; do (cd "$crate" && cargo "$@") || return 1; done
}
run_rust() { # NAME PACKAGE SUBCOMMAND ARGUMENT...
  if command -v "cargo-$3" >/dev/null; then run "$1" rust "${@:3}"
  else echo "skip  $1: no cargo-$3 here (Debian package $2, or rustup's component)"; fi
}

run ruff $bin/ruff check --no-cache .
run ruff-format $bin/ruff format --no-cache --check .
run mypy $bin/mypy
run mypy-cluster sh -c "cd hack/cluster && ../../$bin/mypy --strict --explicit-package-bases local_cluster __main__.py"
run mypy-toolchain sh -c "cd hack/toolchain && ../../$bin/mypy --strict --explicit-package-bases pinned_tools __main__.py"
run mypy-hack env MYPYPATH=hack:hack/toolchain:hack/cluster:operator:agents $bin/mypy --strict --explicit-package-bases hack/manifests.py hack/json_schemas.py hack/reference.py hack/bench/_rows.py
run mypy-fuzz $bin/mypy tests/fuzz
run import-linter $bin/lint-imports --no-cache
run_rust rustfmt rustfmt-web fmt --check
run_rust clippy rust-web-clippy clippy --quiet --locked -- -D warnings
run buf $bin/buf lint protos --path protos/hypermesh
run yamllint $bin/yamllint -s .
run generated-crds same_crds
run operator-is-no-package no_package
run no-registry-hosts no_hosts
run helm-lint build/bin/helm lint --strict charts/hypermesh
run kubeconform $bin/python hack/manifests.py
if [ ${#failed[@]} -gt 0 ]; then echo "lint failed: ${failed[*]}"; exit 1; fi
