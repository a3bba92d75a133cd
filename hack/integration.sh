#!/usr/bin/env bash
# Integration tests, a process a part (the agent's enter a namespace of their own): hack/integration.sh PYTEST...
# The ledger's take as long as all others together and mostly wait for blocks, so they run beside them; what they
# print comes at the end. A part that fails does not keep the others from running.
set -uo pipefail
log=build/integration-ledger.log
mkdir -p build
"$@" tests/integration/ledger >"$log" 2>&1 &
ledger=$!
trap 'kill "$ledger" 2>/dev/null' EXIT
failed=()
for part in tests/integration/*/ tests/integration/test_*.py; do
  case $part in
    */__pycache__/ | tests/integration/ledger/) continue ;;
  esac
  echo "-- $part"
  "$@" "$part" || failed+=("$part")
done
echo "-- tests/integration/ledger/ (since the beginning; tail -f $log)"
wait "$ledger" || failed+=(tests/integration/ledger/)
cat "$log"
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
