#!/usr/bin/env bash
# Programs of the host that builds and tests call: installed by apt-get where they are missing, named as they are.
# usage: hack/host.sh NAME=PACKAGE...   (NAME: a program, or a file when it begins with /)
set -euo pipefail
missing=()
for pair in "$@"; do
  need=${pair%%=*} package=${pair#*=}
  case $need in
    /*) [ -e "$need" ] || missing+=("$package") ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$need" >/dev/null || missing+=("$package") ;;
  esac
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "this machine lacks: ${missing[*]} (names of Debian packages). Install them, or run as root on a Debian-like system" >&2
  exit 1
fi
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! apt-get install -y -q --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
  { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "apt-get could not install them, for the reason above" >&2
    exit 1
  }
fi
rm -f "$log"
