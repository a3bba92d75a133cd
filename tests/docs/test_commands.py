"""Commands in the text are ones that the programs take today; tests/e2e runs the blocks marked `sh` as well."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kubectl_hypermesh.main import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MANIFEST = re.compile(r"<<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(program: str) -> Iterator[tuple[str, str]]:
    """Page and command line, of every call of a program in a block or between backquotes."""
    for page in PAGES:
        text = page.read_text()
        texts = [MANIFEST.sub("", block).replace("\\\n", " ") for block in blocks(page)]
        lines = [line for block in texts for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)
        for line in lines:
            for part in re.split(r"[|;&]|\$\(", line):
                if part.strip().startswith(f"{program} "):
                    yield page.name, part.strip()


PLUGIN = sorted({command for _, command in commands("kubectl hypermesh")})
HELM = sorted({command for _, command in commands("helm upgrade")})


@pytest.mark.parametrize("command", PLUGIN)
def test_the_plugin_takes_it(command: str) -> None:
    build_parser().parse_args(shlex.split(command)[2:])


@pytest.mark.parametrize("command", HELM)
def test_the_chart_takes_its_values(command: str, tmp_path: Path) -> None:
    words = shlex.split(command.replace("${IMAGE%:*}", "example.org/hypermesh").replace("${IMAGE##*:}", "1"))
    rest = [word for word in words[2:] if word not in {"--install", "--create-namespace"}]
    for name, text in values_files().items():
        if name in rest:
            (tmp_path / "values.yaml").write_text(text)
            rest[rest.index(name)] = str(tmp_path / "values.yaml")
    done = subprocess.run(
        [str(ROOT / "build/bin/helm"), "template", *rest],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def values_files() -> dict[str, str]:
    """Files that blocks write by `cat > NAME <<'END'`."""
    found = (
        match
        for page in PAGES
        for match in re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END$", page.read_text(), re.M | re.S)
    )
    return dict(found)


def test_blocks_are_whole_shell_programs() -> None:
    for page in PAGES:
        for block in blocks(page):
            done = subprocess.run(["bash", "-n", "-c", block], text=True, capture_output=True, check=False)
            assert done.returncode == 0, f"{page.name}: {done.stderr}"


def test_the_owner_of_a_machine_changes_no_other() -> None:
    page = ROOT / "docs" / "how-to" / "share-a-machine.md"
    script = "\n".join(blocks(page))
    assert "MEMORY=hypermesh.online/node=$NODE,hypermesh.online/type=memory\n" in script
    loops = re.findall(r"^for (.*)\n  kubectl patch ", script, re.MULTILINE)
    assert len(loops) == script.count("kubectl patch") >= 3
    assert set(loops) == {"asset in $(kubectl get assets -l $MEMORY -o name); do"}


def test_manifests_in_the_text_are_valid(tmp_path: Path) -> None:
    sys.path.append(str(ROOT / "hack"))
    import manifests

    documents = [
        text
        for page in PAGES
        for block in blocks(page)
        for text in MANIFEST.findall(block)
        if "apiVersion" in yaml.safe_load(text)
    ]
    assert documents
    file = tmp_path / "text.yaml"
    file.write_text("---\n".join(documents))
    kubernetes = manifests.kubernetes_schemas()
    found = manifests.kubeconform([file], [kubernetes, manifests.own_schemas(kubernetes)])
    assert [item["msg"] for item in found if item["status"] != "statusValid"] == []
