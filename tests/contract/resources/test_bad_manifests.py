"""Every wrong manifest is refused, and the refusal names the field and says what to write instead.

One file, one mistake: bad/*.yaml, whose `# expect:` lines are parts of the message that a person reads.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .kubectl import Kubectl

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))


def test_there_are_enough() -> None:
    assert len(BAD) >= 30


@pytest.mark.parametrize("manifest", BAD, ids=lambda path: path.stem)
def test_is_refused_with_field_and_remedy(kubectl: Kubectl, manifest: Path) -> None:
    expected = [
        line.removeprefix("# expect: ") for line in manifest.read_text().splitlines() if line.startswith("# expect: ")
    ]
    assert expected, "a bad manifest says what is expected of its refusal"
    refused = kubectl.fails("apply", "-f", str(manifest))
    for part in expected:
        assert part in refused, refused
