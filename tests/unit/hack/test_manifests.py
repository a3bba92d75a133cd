"""What the schemas are shown of the chart: all that its templates can make."""

from __future__ import annotations

import manifests

TEMPLATES = {
    "templates/a.yaml": "kind: Role\n{{- if .Values.more }}\n---\nkind: Secret\n{{- end }}",
    "templates/b/c.yaml": "{{- if .Values.files }}{{ .Files.Get }}{{- end }}",
}


def document(path: str, kind: str) -> str:
    return f"---\n# Source: hypermesh/{path}\nkind: {kind}\nroleRef: {{kind: Nested}}\n"


def test_what_no_variant_makes_is_named() -> None:
    first = document("templates/a.yaml", "Role")
    assert manifests.unseen(TEMPLATES, [first]) == ["templates/a.yaml: Secret", "templates/b/c.yaml: any document"]
    second = document("templates/b/c.yaml", "CustomResourceDefinition") + document("templates/a.yaml", "Secret")
    assert manifests.unseen(TEMPLATES, [first, second]) == []
    assert manifests.unseen(TEMPLATES, [second]) == ["templates/a.yaml: Role"]
