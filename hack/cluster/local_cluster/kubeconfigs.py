"""Kubeconfig texts. JSON, which every YAML reader takes. Pure but for reading the certificates it embeds."""

from __future__ import annotations

import base64
import json

from local_cluster.certificates import Authority


def kubeconfig(server: str, authority: Authority, stem: str) -> str:
    """A kubeconfig for the holder of a leaf certificate, complete in one file."""

    def embedded(path_stem: str, suffix: str) -> str:
        return base64.b64encode(authority.path(path_stem, suffix).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": embedded("ca", "crt")}
    user = {"client-certificate-data": embedded(stem, "crt"), "client-key-data": embedded(stem, "key")}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "hypermesh-local", "cluster": cluster}],
        "users": [{"name": stem, "user": user}],
        "contexts": [{"name": "hypermesh-local", "context": {"cluster": "hypermesh-local", "user": stem}}],
        "current-context": "hypermesh-local",
    }
    return json.dumps(body, indent=1) + "\n"
