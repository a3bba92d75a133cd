"""What the chart installs: pod security, least privilege, probes, upgrade and uninstall of definitions."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hypermesh_agent.proxy import removal as removal_module
from hypermesh_ledger.main import parse
from hypermesh_ledger.peering import plan
from hypermesh_trustchain.tls_leaves import service_names

from .conftest import CHART, HELM, NAMESPACE, ROOT, helm_template

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
Objects = list[dict[str, Any]]


def of_kind(rendered: Objects, *kinds: str) -> Objects:
    return [item for item in rendered if item["kind"] in kinds]


def containers(rendered: Objects) -> list[tuple[str, dict[str, Any]]]:
    return [
        (item["metadata"]["name"], container)
        for item in of_kind(rendered, *WORKLOADS)
        for container in item["spec"]["template"]["spec"]["containers"]
    ]


def rules(rendered: Objects) -> list[tuple[str, dict[str, Any]]]:
    return [
        (item["metadata"]["name"], rule) for item in of_kind(rendered, "Role", "ClusterRole") for rule in item["rules"]
    ]


def test_the_four_processes_are_there(rendered: Objects) -> None:
    names = {item["metadata"]["name"] for item in of_kind(rendered, *WORKLOADS)}
    assert names == {"hypermesh-agent", "hypermesh-ledger", "hypermesh-operator", "hypermesh-trustchain"}


def test_only_the_agent_is_privileged_and_all_others_are_restricted(rendered: Objects) -> None:
    for name, container in containers(rendered):
        security = container["securityContext"]
        if name == "hypermesh-agent":
            assert security["privileged"] is True
            continue
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_only_the_agent_shares_the_host(rendered: Objects) -> None:
    for item in of_kind(rendered, *WORKLOADS):
        pod = item["spec"]["template"]["spec"]
        shares = {key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)}
        paths = [volume for volume in pod.get("volumes", []) if "hostPath" in volume]
        if item["metadata"]["name"] != "hypermesh-agent":
            assert not shares
            assert not paths


def test_every_process_has_probes_metrics_and_requests(rendered: Objects) -> None:
    for name, container in containers(rendered):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == "metrics", name
        assert {"name": "metrics", "containerPort": 7470} in container["ports"]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}


def test_no_rule_has_a_wildcard(rendered: Objects) -> None:
    for name, rule in rules(rendered):
        for field in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[field], name


def test_nobody_reads_secrets_but_its_own_by_name(rendered: Objects) -> None:
    for name, rule in rules(rendered):
        if "secrets" in rule["resources"] and {"get", "list", "watch", "delete"} & set(rule["verbs"]):
            assert rule.get("resourceNames"), f"{name} reads any Secret"
            assert not {"list", "watch"} & set(rule["verbs"])


def test_verbs_and_resources_are_sorted(rendered: Objects) -> None:
    for name, rule in rules(rendered):
        assert rule["verbs"] == sorted(rule["verbs"]), name
        assert rule["resources"] == sorted(rule["resources"]), name


def test_tenants_get_our_resources_with_the_roles_that_every_cluster_has(rendered: Objects) -> None:
    """What admin, edit and view gain, as the API server's controller will gather it by label."""

    def gained(role: str) -> dict[str, set[str]]:
        verbs: dict[str, set[str]] = {}
        for item in of_kind(rendered, "ClusterRole"):
            if item["metadata"]["labels"].get(f"rbac.authorization.k8s.io/aggregate-to-{role}") == "true":
                for rule in item["rules"]:
                    for resource in rule["resources"]:
                        verbs.setdefault(resource, set()).update(rule["verbs"])
        return verbs

    looking = {"get", "list", "watch"}
    assert gained("view") == {"allocations": looking, "assets": looking, "proxymappings": looking}
    asking = looking | {"create", "delete", "deletecollection", "patch", "update"}
    assert gained("edit") == gained("admin") == {**gained("view"), "allocations": asking}


def test_each_policy_is_there_once_and_bound(rendered: Objects) -> None:
    policies = [item["metadata"]["name"] for item in of_kind(rendered, "ValidatingAdmissionPolicy")]
    assert sorted(policies) == [
        "hypermesh-allocations",
        "hypermesh-assets",
        "hypermesh-leases",
        "hypermesh-operator-secrets",
        "hypermesh-proxymappings",
    ]
    bindings = of_kind(rendered, "ValidatingAdmissionPolicyBinding")
    assert [item["spec"]["policyName"] for item in bindings] == policies


def test_the_agent_hears_all_addresses_of_its_node(rendered: Objects) -> None:
    """status.hostIP is IPv4 on a dual-stack cluster that prefers it."""
    (agent,) = (item for name, item in containers(rendered) if name == "hypermesh-agent")
    (address,) = (entry for entry in agent["env"] if entry["name"] == "NODE_IP")
    assert address["valueFrom"] == {"fieldRef": {"fieldPath": "status.hostIPs"}}


def test_services_are_ipv6_only(rendered: Objects) -> None:
    for service in of_kind(rendered, "Service"):
        assert service["spec"]["ipFamilies"] == ["IPv6"]
        assert service["spec"]["ipFamilyPolicy"] == "SingleStack"


def test_definitions_are_upgraded_with_the_chart_and_kept_without_it(rendered: Objects) -> None:
    definitions = of_kind(rendered, "CustomResourceDefinition")
    assert {item["spec"]["names"]["kind"] for item in definitions} >= {"Allocation", "Asset", "ProxyMapping"}
    for item in definitions:
        assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_definitions_of_the_chart_are_those_of_the_source(rendered: Objects) -> None:
    source = {path.name: yaml.safe_load(path.read_text())["spec"] for path in (ROOT / "crds").glob("*.yaml")}
    assert len(source) == 3
    for item in of_kind(rendered, "CustomResourceDefinition"):
        assert item["spec"] == source[f"{item['spec']['names']['plural']}.yaml"]


def test_keys_outlive_the_release(rendered: Objects) -> None:
    secrets = of_kind(rendered, "Secret")
    assert secrets
    for secret in secrets:
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_keys_are_shipped_empty_so_that_every_rendering_is_the_same(rendered: Objects) -> None:
    secrets = of_kind(rendered, "Secret")
    assert {item["metadata"]["name"] for item in secrets} == {
        "hypermesh-agent-kek",
        "hypermesh-operator-key",
        "hypermesh-trustchain-root",
    }
    assert not [item for item in secrets if item.get("data") or item.get("stringData")]
    again = [item for item in yaml.safe_load_all(helm_template().stdout) if item]
    assert again == rendered


def test_every_secret_that_is_read_is_shipped_and_the_other_way_round(rendered: Objects) -> None:
    shipped = {item["metadata"]["name"] for item in of_kind(rendered, "Secret")}
    named = {
        name for _, rule in rules(rendered) if "secrets" in rule["resources"] for name in rule.get("resourceNames", [])
    }
    assert named == shipped


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("agent.plotk=20", "plotk"),
        ("agent.plotK=17", "plotK"),
        ("ledger.proofs=fast", "proofs"),
        ("ledger.validators=0", "validators"),
        ("ledger.validators=2", "validators"),
        ("ledger.validators=3", "validators"),
        ("agent.sharing.privacyLevel=Secret", "privacyLevel"),
        ("operator.replicas=0", "replicas"),
        ("agent.reservedMemory=lots", "reservedMemory"),
        ("agent.memoryProof=some", "memoryProof"),
        ("agent.networkPlace=often", "networkPlace"),
        ("image.tagg=x", "tagg"),
        ("logLevel=debug", "logLevel"),
        ("surprise=1", "surprise"),
        ("ledger.resources.limit.memory=1Gi", "limit"),
        ("agent.tolerations[0].efect=NoSchedule", "efect"),
        ("image.pullSecrets[0].nam=registry", "nam"),
        ("networkPolicy.agentCIDRs[0]=fd00::1", "agentCIDRs"),
        ("networkPolicy.apiServerCIDRs[0]=fd00::1", "apiServerCIDRs"),
        ("networkPolicy.dnsPeers[0].namespace=kube-system", "namespace"),
        ("networkPolicy.metricsPeers[0].ipBlock.cidr=fd00::1", "cidr"),
        ("keyEncryption.volume.csi=driver", "volume"),
    ],
)
def test_the_schema_refuses_typos_and_names_the_value(value: str, names: str) -> None:
    done = helm_template(value)
    assert done.returncode != 0
    assert names in done.stderr


def test_every_object_of_the_schema_says_which_keys_it_takes() -> None:
    """Open are `global`, which is Helm's and parent charts', and a volume's source, which the API server checks."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [each for item in node for each in walk(item, path)]
        if not isinstance(node, dict):
            return []
        openness = node.get("additionalProperties", True)
        here = [path] if node.get("type") == "object" and openness is True else []
        return here + [each for key, item in node.items() for each in walk(item, f"{path}.{key}")]

    volume = ".properties.keyEncryption.properties.volume.additionalProperties"
    assert walk(schema, "") == [".properties.global", volume]


def test_every_value_is_in_the_schema_with_a_description() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(values: dict[str, Any], node: dict[str, Any], path: str) -> None:
        for key, value in values.items():
            assert key in node["properties"], f"{path}{key}"
            child = node["properties"][key]
            assert child.get("description"), f"{path}{key} has no description"
            if isinstance(value, dict) and "properties" in child:
                walk(value, child, f"{path}{key}.")

    walk(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")


def test_definitions_can_be_left_out() -> None:
    done = helm_template("crds.enabled=false")
    assert done.returncode == 0
    assert "CustomResourceDefinition" not in done.stdout


def test_an_upgrade_that_reuses_the_values_of_an_older_chart_renders() -> None:
    """Helm's --reuse-values leaves out what values.yaml has got since."""
    done = helm_template("agent.networkPlace=null")
    assert done.returncode == 0, done.stderr
    addresses = [env["value"] for env in _validators(done.stdout)]
    assert addresses == [""]
    assert [env["value"] for env in _validators(helm_template().stdout)] == [
        "hypermesh-ledger-peers.hypermesh-system.svc:7450"
    ]


def _validators(rendered: str) -> list[dict[str, Any]]:
    objects = [each for each in yaml.safe_load_all(rendered) if each]
    every = [env for _, container in containers(objects) for env in container.get("env", [])]
    return [env for env in every if env["name"] == "HYPERMESH_VALIDATORS"]


def test_a_pool_outside_the_state_directory_gets_its_own_mount() -> None:
    done = helm_template("agent.poolPath=/srv/pool")
    daemon = next(item for item in yaml.safe_load_all(done.stdout) if item and item["kind"] == "DaemonSet")
    mounts = {mount["mountPath"] for mount in daemon["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert {"/srv/pool", "/var/lib/hypermesh"} <= mounts


def test_a_removal_runs_where_the_agent_ran_and_is_ready_when_it_is_done() -> None:
    done = helm_template("agent.removal=true", "agent.poolPath=/srv/pool")
    normal = helm_template("agent.poolPath=/srv/pool")

    def pod(text: str) -> dict[str, Any]:
        (item,) = of_kind([item for item in yaml.safe_load_all(text) if item], "DaemonSet")
        return dict(item["spec"]["template"]["spec"])

    removing, running = pod(done.stdout), pod(normal.stdout)
    (removal,), (agent,) = removing.pop("initContainers"), running.pop("containers")
    (stay,) = removing.pop("containers")
    assert removing == running, "the same nodes, network, process and volumes"
    assert removal["command"][-1] == removal_module.__name__
    differing = {key for key in removal.keys() | agent.keys() if removal.get(key) != agent.get(key)}
    assert differing == {"name", "command", "ports", "startupProbe", "livenessProbe", "readinessProbe"}
    assert "privileged" not in stay["securityContext"]
    assert "volumeMounts" not in stay


def test_the_key_encryption_file_reaches_those_whose_keys_rest_in_secrets_and_nobody_else() -> None:
    done = helm_template("keyEncryption.volume.csi.driver=secrets-store.csi.k8s.io", "keyEncryption.file=wrapping")
    given = set()
    for item in of_kind([each for each in yaml.safe_load_all(done.stdout) if each], *WORKLOADS):
        pod = item["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        sources = [volume for volume in pod["volumes"] if volume["name"] == "key-encryption"]
        mounts = [mount for mount in container["volumeMounts"] if mount["name"] == "key-encryption"]
        paths = [entry["value"] for entry in container["env"] if entry["name"] == "HYPERMESH_KEY_ENCRYPTION_FILE"]
        assert len(sources) == len(mounts) == len(paths)
        if sources:
            given.add(item["metadata"]["name"])
            assert sources[0]["csi"] == {"driver": "secrets-store.csi.k8s.io"}
            assert mounts[0]["readOnly"]
            assert paths == [f"{mounts[0]['mountPath']}/wrapping"]
    assert given == {"hypermesh-operator", "hypermesh-trustchain"}
    assert "key-encryption" not in helm_template().stdout


def test_helm_lint_is_clean(tmp_path: Path) -> None:
    done = subprocess.run([str(HELM), "lint", "--strict", str(CHART)], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


UNCHANGEABLE = {"podManagementPolicy", "serviceName", "selector", "volumeClaimTemplates"}
"""Of a StatefulSet, as far as this one has them: an upgrade that changes one is refused."""


def test_one_validator_knows_of_no_peers_and_four_know_each_other(rendered: Objects) -> None:
    (one,) = (each for each in of_kind(rendered, "StatefulSet"))
    assert one["spec"]["replicas"] == 1
    alone, _ = parse(one["spec"]["template"]["spec"]["containers"][0]["command"][1:])
    lone = plan(alone.p2p_address, alone.peers, "hypermesh-ledger-0", alone.peers_tls_name)
    assert lone is not None
    assert (lone.founder, lone.targets) == (True, ())
    assert not of_kind(rendered, "PodDisruptionBudget")
    done = helm_template("ledger.validators=4")
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.safe_load_all(done.stdout) if item]
    (four,) = of_kind(objects, "StatefulSet")
    assert {name: one["spec"][name] for name in UNCHANGEABLE} == {name: four["spec"][name] for name in UNCHANGEABLE}
    (budget,) = of_kind(objects, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == four["spec"]["selector"]
    assert (four["spec"]["replicas"], four["spec"]["podManagementPolicy"]) == (4, "Parallel")
    container = four["spec"]["template"]["spec"]["containers"][0]
    options, _ = parse(container["command"][1:])
    assert options.peers.split(",") == [
        f"hypermesh-ledger-{number}.hypermesh-ledger-peers.{NAMESPACE}.svc:7450" for number in range(4)
    ]
    founder = plan(options.p2p_address, options.peers, "hypermesh-ledger-0", options.peers_tls_name)
    other = plan(options.p2p_address, options.peers, "hypermesh-ledger-3", options.peers_tls_name)
    assert founder is not None
    assert other is not None
    assert (founder.founder, other.founder) == (True, False)
    assert len(founder.targets) == len(other.targets) == 3
    assert founder.tls_name in service_names("hypermesh-ledger", NAMESPACE)
    assert {"name": "p2p", "containerPort": founder.port} in container["ports"]
