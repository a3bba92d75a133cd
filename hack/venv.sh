#!/usr/bin/env bash
# Make the Python environment: every package pinned by hash, our own source installed editable.
# usage: hack/venv.sh DIR
set -euo pipefail
dir=$1
here=$(dirname "$0")

new_enough() { command -v python3 >/dev/null && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }
new_enough || "$here/host.sh" /usr/bin/python3=python3 /etc/ssl/certs/ca-certificates.crt=ca-certificates
new_enough || { echo "Python 3.11 or newer is needed; this machine's python3 is older" >&2; exit 1; }
python3 -c 'import ensurepip, venv' 2>/dev/null || "$here/host.sh" /missing/venv=python3-venv

started=$SECONDS
"$dir/bin/python" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear "$dir"
[ -t 1 ] && echo "Python environment: installing pinned packages (once) ..."
"$dir/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$here/uv.lock.txt"
"$dir/bin/uv" pip sync -q --python "$dir/bin/python" --require-hashes requirements-dev.lock
"$dir/bin/uv" pip install -q --python "$dir/bin/python" --no-deps --no-build-isolation -e .
echo "Python environment ready ($((SECONDS - started)) s)"
