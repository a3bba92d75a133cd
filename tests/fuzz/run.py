"""One fuzz target under a coverage-guided fuzzer (atheris, that is libFuzzer): python tests/fuzz/run.py TARGET SECONDS

Inputs that reach new code are kept in build/fuzz/TARGET for the next run. A finding ends the run with its traceback and
a file build/fuzz/TARGET-crash-*: mend the decoder, and put that file into tests/fuzz/corpus/TARGET, where every run of
the unit tests tries it again. `--list` prints the targets.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LONGEST = 65_536
SLOW_S = 30
MEMORY_MIB = 2_048
PACKAGES = ["hypermesh", "hypermesh_ledger", "hypermesh_clients", "hypermesh_agent", "hypermesh_trustchain"]
PACKAGES += ["hypermesh_verify"]


def main() -> None:
    sys.path.append(str(CHECKOUT))  # last: the folder operator/ must not hide the standard library's module
    if sys.argv[1:] == ["--list"]:
        from tests.fuzz.targets import TARGETS

        print(*TARGETS)
        return
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]  # of `make fuzz` only

    with atheris.instrument_imports(include=PACKAGES, enable_loader_override=False):
        from tests.fuzz.seeds import seeds
        from tests.fuzz.targets import TARGETS
    name, seconds = sys.argv[1:]
    kept = CHECKOUT / "build" / "fuzz" / name
    kept.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(seeds(name)):
        (kept / f"seed-{index}").write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "timeout": SLOW_S,
        "rss_limit_mb": MEMORY_MIB,
        "artifact_prefix": f"{kept}-",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(kept)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
