"""Local volumes whose claim was deleted: emptied and offered again, since nothing in Kubernetes does that for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from local_cluster.kubectl import kubectl
from local_cluster.manifests import STORAGE_CLASS
from local_cluster.state import State


def released(listed: dict[str, Any]) -> list[str]:
    """Names of the volumes of our class in a PersistentVolumeList that are Released."""
    return [
        item["metadata"]["name"]
        for item in listed["items"]
        if item["spec"].get("storageClassName") == STORAGE_CLASS and item["status"].get("phase") == "Released"
    ]


def offer_again(state: State, binaries: Path) -> None:
    """Empties the released volumes' directories and takes their claims off."""
    listed = json.loads(kubectl(binaries, state.kubeconfig, "get", "persistentvolumes", "-o", "json"))
    for name in released(listed):
        empty(state.directory / "volumes" / name)
        patch = json.dumps([{"op": "remove", "path": "/spec/claimRef"}])
        kubectl(binaries, state.kubeconfig, "patch", "persistentvolume", name, "--type=json", "--patch", patch)


def empty(directory: Path) -> None:
    """Removes everything in a directory."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
