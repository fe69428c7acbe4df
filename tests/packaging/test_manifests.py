"""The manifests under docker/kubernetes: each field is one of its API's, and what they name exists."""

from __future__ import annotations

import importlib
import json
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import yaml
from kubernetes import client

from agentq.cli.root import COMMANDS
from agentq.core.pools import PoolSpec, load_pools
from agentq.fleet.endpoint import document_of, exposition
from agentq.fleet.published import Known
from agentq.settings import Settings
from tests.kit.process import ROOT
from tests.unit.fleet.test_endpoint import NOW_MS, decision

FOLDER = ROOT / "docker" / "kubernetes"
MODELS = {
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "Service"): "V1Service",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
}
SCALED_OBJECT = {
    "scaleTargetRef", "pollingInterval", "cooldownPeriod", "initialCooldownPeriod", "idleReplicaCount",
    "minReplicaCount", "maxReplicaCount", "fallback", "advanced", "triggers",
}  # fmt: skip
"""https://keda.sh/docs/2.17/reference/scaledobject-spec/"""
METRICS_API = {
    "url", "format", "valueLocation", "targetValue", "activationTargetValue", "unsafeSsl",
    "aggregateFromKubeServiceEndpoints", "aggregationType", "authMode", "method", "keyParamName",
}  # fmt: skip
"""https://keda.sh/docs/2.17/scalers/metrics-api/"""

TRIGGERS = {"metrics-api": METRICS_API, "external-push": {"scalerAddress", "pool"}}
"""https://keda.sh/docs/2.17/scalers/external-push/; what KEDA does not know it hands on."""


class Manifest(NamedTuple):
    """One document of one file."""

    file: str
    content: dict[str, Any]

    def __str__(self) -> str:
        """For the tests' names."""
        return f"{self.file}-{self.content['kind']}"


MANIFESTS = [
    Manifest(path.stem, content)
    for path in sorted(FOLDER.glob("*.yaml"))
    for content in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]


def named(kind: str) -> list[dict[str, Any]]:
    return [manifest.content for manifest in MANIFESTS if manifest.content["kind"] == kind]


def read_back(model: str, content: dict[str, Any]) -> Any:
    """The content as the client understands it, and writes it again: a field that the API does not know is lost."""
    api: Any = client.ApiClient(client.Configuration(host="http://nowhere"))
    return api.sanitize_for_serialization(api.deserialize(json.dumps(content), model, "application/json"))


@pytest.mark.parametrize("manifest", [each for each in MANIFESTS if each.content["kind"] != "ScaledObject"], ids=str)
def test_each_field_is_one_of_its_api(manifest: Manifest) -> None:
    model = MODELS[manifest.content["apiVersion"], manifest.content["kind"]]
    assert read_back(model, manifest.content) == manifest.content


def test_a_field_that_the_api_does_not_know_is_seen() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"port": []}}
    assert read_back("V1Service", wrong) != wrong


@pytest.mark.parametrize("content", named("ScaledObject"))
def test_each_field_for_keda_is_one_of_its_specification(content: dict[str, Any]) -> None:
    assert content["apiVersion"] == "keda.sh/v1alpha1"
    assert set(content["spec"]) <= SCALED_OBJECT
    (trigger,) = content["spec"]["triggers"]
    assert set(trigger["metadata"]) <= TRIGGERS[trigger["type"]]
    assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA reads texts"
    behavior = content["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert read_back("V2HorizontalPodAutoscalerBehavior", behavior) == behavior


def test_keda_and_the_hpa_ask_for_what_is_served() -> None:
    (hpa,), (service,) = named("HorizontalPodAutoscaler"), named("Service")
    triggers = [each["spec"]["triggers"][0] for each in named("ScaledObject")]
    asked, pushed = ({each["type"]: each["metadata"] for each in triggers}[kind] for kind in TRIGGERS)
    ports = {each["name"]: each["port"] for each in service["spec"]["ports"]}
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert asked["url"] == f"http://{host}:{ports['metrics']}/pools/tools"
    assert pushed == {"scalerAddress": f"{host}:{ports['push']}", "pool": "tools"}
    known = Known(NOW_MS, {"tools": decision("tools")})
    assert document_of(known, known.decisions["tools"])[asked["valueLocation"]] == 3
    metric = hpa["spec"]["metrics"][0]["external"]["metric"]
    labels = ",".join(f'{name}="{value}"' for name, value in metric["selector"]["matchLabels"].items())
    assert f"{metric['name']}{{{labels}}} 3" in set(exposition(known))


def test_what_is_scaled_is_a_deployment_and_its_bounds_are_the_pools(pools: dict[str, PoolSpec]) -> None:
    deployments = {each["metadata"]["name"] for each in named("Deployment")}
    for scaled, least, most in (
        *((each, "minReplicaCount", "maxReplicaCount") for each in named("ScaledObject")),
        (named("HorizontalPodAutoscaler")[0], "minReplicas", "maxReplicas"),
    ):
        name = scaled["spec"]["scaleTargetRef"]["name"]
        (pool,) = [pool for pool in pools.values() if pool.target == name]
        assert name in deployments
        assert (max(pool.min, 0 if least == "minReplicaCount" else 1), pool.max) == (
            scaled["spec"][least],
            scaled["spec"][most],
        )


@pytest.fixture
def pools(tmp_path: Path) -> dict[str, PoolSpec]:
    """The pools of the ConfigMap, read as a worker reads them."""
    (shared,) = named("ConfigMap")
    text = shared["data"]["pools.toml"]
    tomllib.loads(text)
    (tmp_path / "pools.toml").write_text(text)
    return load_pools(tmp_path / "pools.toml")


@pytest.mark.parametrize("content", named("Deployment"), ids=lambda content: content["metadata"]["name"])
def test_commands_settings_and_labels_exist(content: dict[str, Any], pools: dict[str, PoolSpec]) -> None:
    template = content["spec"]["template"]
    assert content["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    name, *options = container["args"]
    entry = COMMANDS[name]
    command = getattr(importlib.import_module(entry.module), entry.attribute)
    assert isinstance(command, click.Command)
    context = command.make_context(name, list(options), resilient_parsing=False)
    assert set(context.params.get("pools") or ()) <= set(pools)
    settings = {each["name"] for each in container["env"]}
    assert settings <= {f"AGENTQ_{name.upper()}" for name in Settings.model_fields}
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in template["spec"]["volumes"]}


def test_the_role_allows_what_the_driver_asks_for_and_no_more() -> None:
    (role,) = named("Role")
    allowed = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    source = (ROOT / "agentq" / "fleet" / "drivers" / "kubernetes.py").read_text(encoding="utf-8")
    calls = {
        "read_namespaced_deployment_scale": ("deployments/scale", "get"),
        "replace_namespaced_deployment_scale": ("deployments/scale", "update"),
        "read_namespaced_pod": ("pods", "get"),
        "list_namespaced_pod": ("pods", "list"),
        "patch_namespaced_pod": ("pods", "patch"),
    }
    assert {allow for call, allow in calls.items() if f".{call}(" in source} == allowed
    assert source.count("_namespaced_") == sum(source.count(f".{call}(") for call in calls)
