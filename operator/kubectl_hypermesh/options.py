"""What every command needs to know, and the error that ends one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hypermesh_clients.kube import Kube

INSTALL_NAMESPACE = "hypermesh-system"


class CommandError(Exception):
    """Ends the command with exit status 1; the message names the object, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """Global flags. `namespace` is the tenant's; `install_namespace` is where the chart lives."""

    kubeconfig: Path | None
    context: str | None
    namespace: str
    install_namespace: str
    output: str

    def kube(self) -> Kube:
        """A client for the chosen cluster; inside a Pod, for the Pod's own."""
        if self.kubeconfig is None and self.context is None and "KUBECONFIG" not in os.environ:
            return Kube.auto(patience=2.0)
        return Kube.from_kubeconfig(self.kubeconfig, self.context, patience=2.0)
