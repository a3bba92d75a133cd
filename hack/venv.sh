#!/usr/bin/env bash
# Make the Python environment: every package pinned by hash, our own source installed editable.
# usage: hack/venv.sh DIR
set -euo pipefail
dir=$1

python=$(command -v python3 || true)
if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "Python 3.11 or newer is needed: install it (Debian 12: apt-get install python3 python3-venv)" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Python's venv module is missing: install it (Debian: apt-get install python3-venv)" >&2
    exit 1
  fi
  echo "installing python3-venv"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
fi
[ -x "$dir/bin/python" ] || "$python" -m venv "$dir"
started=$SECONDS
[ -t 1 ] && echo "Python environment: installing pinned packages (once) ..."
"$dir/bin/python" -m pip install -q --disable-pip-version-check uv==0.13.9
"$dir/bin/uv" pip sync -q --python "$dir/bin/python" --require-hashes requirements-dev.lock
"$dir/bin/python" -m ensurepip -q 2>/dev/null || true
"$dir/bin/python" -m pip install -q --disable-pip-version-check uv==0.13.9
"$dir/bin/uv" pip install -q --python "$dir/bin/python" --no-deps --no-build-isolation -e .
echo "Python environment ready ($((SECONDS - started)) s)"
