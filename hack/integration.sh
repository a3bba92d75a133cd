#!/usr/bin/env bash
# Integration tests, a process a part (the agent's enter a namespace of their own): hack/integration.sh PYTEST...
# The ledger's take as long as all others together and mostly wait for blocks, so they run beside them; what they
# print comes at the end. A part that fails does not keep the others from running, and says why once more at the end.
set -uo pipefail
logs=build/integration
mkdir -p "$logs"
log_of() { echo "$logs/$(basename "$1" .py).log"; }
"$@" tests/integration/ledger >"$logs/ledger.log" 2>&1 &
ledger=$!
trap 'kill "$ledger" 2>/dev/null' EXIT
failed=()
for part in tests/integration/*/ tests/integration/test_*.py; do
  case $part in
    */__pycache__/ | tests/integration/ledger/) continue ;;
  esac
  echo "-- $part"
  "$@" "$part" 2>&1 | tee "$(log_of "$part")" || failed+=("$part")
done
echo "-- tests/integration/ledger/ (since the beginning; tail -f $logs/ledger.log)"
wait "$ledger" || failed+=(tests/integration/ledger/)
cat "$logs/ledger.log"
[ ${#failed[@]} -eq 0 ] && exit 0
for part in "${failed[@]}"; do
  echo "-- failed: $part, the end of $(log_of "$part")"
  tail -n 40 "$(log_of "$part")"
done
exit 1
