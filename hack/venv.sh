#!/usr/bin/env bash
# Make the Python environment: every package pinned by hash, our own source installed editable.
# usage: hack/venv.sh DIR
set -euo pipefail
dir=$1
here=$(dirname "$0")

# Which interpreter: the one that PYTHON names; else the distribution's, which is of the image's kind and compiled with
# profiles of its own use (a plain build, as pyenv makes them, runs the ledger slower); else the first in PATH.
new_enough() { command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }
complete() { new_enough "$1" && "$1" -c 'import ensurepip, venv' 2>/dev/null; }
chosen() { for python in ${PYTHON:+"$PYTHON"} /usr/bin/python3 python3; do "$1" "$python" && return; done; }
if ! chosen complete; then
  chosen new_enough || "$here/host.sh" /usr/bin/python3=python3 /etc/ssl/certs/ca-certificates.crt=ca-certificates
  chosen new_enough || { echo "Python 3.11 or newer is needed; this machine's python3 is older" >&2; exit 1; }
  "$here/host.sh" /missing/venv=python3-venv
  chosen complete || { echo "$python lacks the modules ensurepip and venv" >&2; exit 1; }
fi

started=$SECONDS
same() { [ "$(readlink -f "$dir/bin/python")" = "$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')" ]; }
same && "$dir/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$dir"
[ -t 1 ] && echo "Python environment: installing pinned packages (once) ..."
"$dir/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$here/uv.lock.txt"
"$dir/bin/uv" pip sync -q --python "$dir/bin/python" --require-hashes requirements-dev.lock
"$dir/bin/uv" pip install -q --python "$dir/bin/python" --no-deps --no-build-isolation -e .
echo "Python environment ready ($((SECONDS - started)) s)"
