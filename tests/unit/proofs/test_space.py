"""Proof of space against a real plot: honest answers pass, every change of any field is refused with its cause."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypermesh.proofs import ProofRefused, challenge, verify_space
from hypermesh.proofs.parameters import DEMO
from hypermesh.v1.proofs_pb2 import PROOF_KIND_SPACE, SpaceAnswer, SpaceProof
from hypermesh_agent.proofs import plots

K = 18
SHARED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(node: bytes, c: bytes, proof: SpaceProof) -> str:
    with pytest.raises(ProofRefused) as caught:
        verify_space(node, c, proof, DEMO)
    assert (caught.value.kind, caught.value.reason) == (PROOF_KIND_SPACE, "SpaceProofInvalid")
    return caught.value.message


def test_honest_answers_pass(node: bytes, asked: bytes, space_proof: SpaceProof) -> None:
    verify_space(node, asked, space_proof, DEMO)
    assert len(space_proof.answers) == DEMO.space_required
    assert all(len(answer.proof) == K * 8 for answer in space_proof.answers)


def test_the_answers_are_fixed_forever(whole_space_proof: SpaceProof) -> None:
    """Plots are deterministic, so a change of the plot id or the sub-challenges shows here."""
    serialized = whole_space_proof.SerializeToString(deterministic=True)
    assert hashlib.sha256(serialized).hexdigest() == "90d340eddfa07c46a12a1572234c8fa5f3c4ab8521e53bb96f336e5698a508dd"


def test_the_plot_answers_nearly_every_epoch(plot_dir: Path, node: bytes) -> None:
    """Of 20 epochs all succeed: an honest plot fails about twice in a million."""
    for epoch in range(20):
        c = challenge("test-chain", b"beacon", node, epoch)
        verify_space(node, c, plots.answer(plot_dir, node, K, c, DEMO), DEMO)


def test_all_that_a_plot_has_may_be_shown(plot_dir: Path, node: bytes, asked: bytes) -> None:
    answers = plots._answers(plot_dir, node, K, asked, DEMO.space_challenges)
    assert DEMO.space_required < len(answers) <= DEMO.space_challenges
    verify_space(node, asked, SpaceProof(k=K, answers=answers), DEMO)


def test_another_node_epoch_chain_or_beacon_is_refused(node: bytes, asked: bytes, space_proof: SpaceProof) -> None:
    assert "doesn't verify" in refused(b"\xff" * 32, asked, space_proof)
    for c in (
        challenge("test-chain", b"beacon", node, 8),
        challenge("other-chain", b"beacon", node, 7),
        challenge("test-chain", b"other", node, 7),
        challenge("test-chain", b"beacon", b"\xff" * 32, 7),
    ):
        assert "doesn't verify" in refused(node, c, space_proof)


CHANGES: list[tuple[str, Callable[[SpaceProof], object], str]] = [
    ("k below the minimum", lambda p: setattr(p, "k", 17), "plot of k=17"),
    ("k zero", lambda p: setattr(p, "k", 0), "plot of k=0"),
    ("k larger", lambda p: setattr(p, "k", 19), "152 are needed"),
    ("k beyond chiapos", lambda p: setattr(p, "k", 2**32 - 1), "plot of k=4294967295"),
    ("k wraps in a byte", lambda p: setattr(p, "k", 256 + 18), "plot of k=274"),
    ("no answers", lambda p: p.ClearField("answers"), "0 answers"),
    ("one too few", lambda p: p.answers.pop(), "7 answers"),
    ("too many", lambda p: p.answers.extend([p.answers[-1]] * 25), "33 answers"),
    ("one twice", lambda p: p.answers.insert(0, p.answers[0]), "no index twice"),
    ("unsorted", lambda p: p.answers.insert(0, p.answers.pop()), "sorted by index"),
    ("index too large", lambda p: setattr(p.answers[-1], "index", 32), "answer 32: there are 32"),
    ("index wraps", lambda p: setattr(p.answers[-1], "index", 2**32 - 1), "there are 32 sub-challenges"),
    ("answer of another index", lambda p: setattr(p.answers[-1], "index", p.answers[-1].index + 1), "doesn't verify"),
    ("empty answer", lambda p: setattr(p.answers[3], "proof", b""), "has 0 bytes: 144"),
    ("truncated answer", lambda p: setattr(p.answers[3], "proof", p.answers[3].proof[:-1]), "has 143 bytes"),
    ("oversized answer", lambda p: setattr(p.answers[3], "proof", p.answers[3].proof + b"\0"), "has 145 bytes"),
    ("huge answer", lambda p: setattr(p.answers[3], "proof", bytes(65536 + 144)), "has 65680 bytes"),
    ("zeros", lambda p: setattr(p.answers[3], "proof", bytes(144)), "doesn't verify"),
    ("ones", lambda p: setattr(p.answers[3], "proof", b"\xff" * 144), "doesn't verify"),
]


@pytest.mark.parametrize(("change", "message"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES])
def test_a_changed_proof_is_refused_with_its_cause(
    node: bytes, asked: bytes, space_proof: SpaceProof, change: Callable[[SpaceProof], object], message: str
) -> None:
    change(space_proof)
    assert message in refused(node, asked, space_proof)


@SHARED
@given(st.integers(0, 7), st.integers(0, K * 64 - 1))
def test_any_flipped_bit_of_any_answer_is_refused(
    node: bytes, asked: bytes, whole_space_proof: SpaceProof, answer: int, bit: int
) -> None:
    proof = SpaceProof()
    proof.CopyFrom(whole_space_proof)
    changed = bytearray(proof.answers[answer].proof)
    changed[bit // 8] ^= 1 << bit % 8
    proof.answers[answer].proof = bytes(changed)
    assert f"answer {proof.answers[answer].index} doesn't verify" in refused(node, asked, proof)


@SHARED
@given(st.integers(18, 40), st.binary(min_size=1, max_size=320), st.binary(min_size=32, max_size=32))
def test_garbage_of_the_right_shape_is_refused(node: bytes, k: int, pattern: bytes, c: bytes) -> None:
    proof = (pattern * 320)[: k * 8]
    answers = [SpaceAnswer(index=index, proof=proof) for index in range(8)]
    assert "answer 0 doesn't verify" in refused(node, c, SpaceProof(k=k, answers=answers))


# ---- The plot file ------------------------------------------------------------------------------------------------


def damage_header(content: bytearray) -> None:
    content[:200] = bytes(200)


def damage_tables(content: bytearray) -> None:
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)


def damage_pointers(content: bytearray) -> None:
    content[60:140] = b"\xff" * 80


def truncate(content: bytearray) -> None:
    del content[len(content) // 2 :]


@pytest.mark.parametrize("damage", [damage_header, damage_tables, damage_pointers, truncate, bytearray.clear])
def test_a_damaged_plot_is_noticed_and_made_again(
    plot_dir: Path, tmp_path: Path, node: bytes, damage: Callable[[bytearray], None]
) -> None:
    """Plots are deterministic, so the new one has the old one's bytes."""
    whole = plots.plot_path(plot_dir, node, K).read_bytes()
    path = plots.plot_path(tmp_path, node, K)
    content = bytearray(whole)
    damage(content)
    path.write_bytes(content)
    with pytest.raises(plots.PlotUnusable):
        plots.check(tmp_path, node, K)
    assert plots.ensure(tmp_path, node, K)
    assert path.read_bytes() == whole
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([".lock", path.name])


def test_a_sound_plot_is_kept_and_leftovers_are_removed(plot_dir: Path, tmp_path: Path, node: bytes) -> None:
    path = Path(shutil.copy(plots.plot_path(plot_dir, node, K), tmp_path))
    before = path.stat().st_mtime_ns
    assert not plots.ensure(tmp_path, node, K)
    assert path.stat().st_mtime_ns == before
    (tmp_path / "making").mkdir()
    (tmp_path / "making" / "leftover.tmp").write_bytes(b"x")
    assert plots.ensure(tmp_path, node, K, anew=True)
    assert not (tmp_path / "making").exists()


def test_another_nodes_plot_is_refused(plot_dir: Path, tmp_path: Path, node: bytes) -> None:
    other = b"\xee" * 32
    shutil.copy(plots.plot_path(plot_dir, node, K), plots.plot_path(tmp_path, other, K))
    with pytest.raises(plots.PlotUnusable, match="belongs to another node"):
        plots.check(tmp_path, other, K)


def test_a_missing_plot_is_told(tmp_path: Path, node: bytes) -> None:
    with pytest.raises(plots.PlotUnusable, match="can't be opened"):
        plots.answer(tmp_path, node, K, bytes(32), DEMO)


def test_a_full_disk_is_told_before_plotting(tmp_path: Path, node: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(plots.PlotUnusable, match=r"needs \d+ MiB in .* 1 MiB are free"):
        plots.ensure(tmp_path, node, K)


def test_the_size_estimate_is_right(plot_dir: Path, node: bytes) -> None:
    real = plots.plot_path(plot_dir, node, K).stat().st_size
    assert abs(plots.plot_bytes(K) - real) < real // 10
