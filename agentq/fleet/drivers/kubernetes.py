"""Workers as pods of Deployments: each pool is a Deployment, sized by its scale subresource.

Which pod goes is said by `controller.kubernetes.io/pod-deletion-cost`; it is asked for only when its worker is drained.
A pod that goes all the same gets SIGTERM: its worker takes nothing more, ends what it can and hands the rest over.

A change names the version of the Deployment that it was decided by, so that one which another controller, or a person,
has changed since is left as it is.
API: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/deployment-v1/
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, Final

from agentq.core.errors import DriverFailed, InvalidSetting
from agentq.fleet.drivers import Driver, Instance, Observed, Setup
from agentq.fleet.drivers.looks import LOOKS_S, Looks

LOOK_S: Final = 2.0
"""How old a look at a pool may be; of many pools older, so that the cluster's API is asked some ten times a second."""

_LOOKS_A_SECOND: Final = 10

TIMEOUT_S: Final = 5.0

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
GOES_FIRST: Final = "-1000"

_TRIES: Final = 3
"""To write past a change of the Deployment's status, which comes every second while pods start."""

_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_HOPELESS: Final = frozenset(
    {"CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"}
)
"""Reasons of a waiting container that more waiting does not mend."""


@dataclass(frozen=True, slots=True)
class Place:
    """A Deployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As the pool's `target` may have it."""
        return f"{self.namespace}/{self.name}"


class Kubernetes:
    """The driver of one cluster.

    Args:
        apps, core: the client's `AppsV1Api` and `CoreV1Api`.
        target: the Deployment of a pool.
        clock: seconds, on any clock that does not jump.
    """

    name = "kubernetes"
    chooses = True
    acts = True

    def __init__(
        self, *, apps: Any, core: Any, target: Callable[[str], Place], clock: Callable[[], float] = monotonic
    ) -> None:
        self._apps, self._core, self._target, self._clock = apps, core, target, clock
        self._scales: dict[str, Any] = {}
        self._looks = Looks(self._look, fresh_s=LOOK_S, a_second=_LOOKS_A_SECOND, clock=clock)
        self._refusals: list[DriverFailed] = []

    def __repr__(self) -> str:
        return "Kubernetes()"

    def observe(self, pools: Sequence[str]) -> Mapping[str, Observed]:
        """What there is of each pool, at most some seconds old: the Deployment's replicas, and its pods."""
        self._refusals.clear()
        found = self._looks.at(pools)
        if self._refusals and len(self._refusals) == len(pools):
            for pool in pools:
                self._looks.forget(pool)
            raise self._refusals[0]
        return found

    def apply(self, pool: str, instances: int, *, fence: int) -> None:
        """The Deployment has so many replicas; nothing is changed where it has them already."""
        scale = self._scales.get(pool) or self._found(pool)
        if (scale.spec.replicas or 0) != instances:
            self._write(pool, scale, instances)

    def drain(self, pool: str, names: Sequence[str], *, fence: int) -> None:
        """These pods are the first to go, and the Deployment has as many replicas less.

        A repeat after a lost answer finds them ending, and takes no second replica along.
        """
        if not names:
            return
        # As it was looked at: read anew, it would name a version that nobody has decided by.
        scale = self._scales.get(pool) or self._found(pool)
        began, going = self._clock(), 0
        for name in names:
            # Of a slow cluster those for whom there was no time are told again.
            if not going or self._clock() - began < LOOKS_S:
                going += self._mark(pool, name)
        if going:
            self._write(pool, scale, max(0, (scale.spec.replicas or 0) - going))

    def close(self, *, keep: bool) -> None:
        """Do nothing: the pods go on as they are."""

    def _look(self, pool: str) -> Observed:
        """One namespace that we may not see must not stand in the way of the others."""
        try:
            return self._observe(pool)
        except DriverFailed as error:
            if not _has_answered(error):
                raise
            self._refusals.append(error)
            return Observed(None, trouble=error.reason, is_unknown=True)

    def _observe(self, pool: str) -> Observed:
        place = self._target(pool)
        try:
            scale = self._read(pool)
            selector = scale.status.selector if scale.status is not None else None
            with self._told(pool):
                found = self._core.list_namespaced_pod(
                    place.namespace, label_selector=selector or "", _request_timeout=TIMEOUT_S
                )
        except _Absent:
            return Observed(wanted=None, trouble=_absent(place))
        pods = [pod for pod in found.items if selector and not _has_ended(pod)]
        stays = [pod for pod in pods if pod.metadata.deletion_timestamp is None]
        if len(stays) <= (scale.spec.replicas or 0):
            self._unmark(pool, [pod.metadata.name for pod in stays if _is_marked(pod)])
        now = datetime.now(UTC)
        return Observed(
            wanted=scale.spec.replicas or 0,
            instances=tuple(_instance(pod, now) for pod in pods),
            trouble=next((words for pod in pods if (words := _trouble(pod)) is not None), None),
        )

    def _found(self, pool: str) -> Any:
        try:
            return self._read(pool)
        except _Absent as error:
            raise self._failed(pool, _absent(self._target(pool))) from error

    def _read(self, pool: str) -> Any:
        place = self._target(pool)
        self._scales.pop(pool, None)
        with self._told(pool):
            self._scales[pool] = self._apps.read_namespaced_deployment_scale(
                place.name, place.namespace, _request_timeout=TIMEOUT_S
            )
        return self._scales[pool]

    def _mark(self, pool: str, name: str) -> bool:
        """Have a pod go first when one goes; False where it is gone, or ending."""
        namespace = self._target(pool).namespace
        marked = {"metadata": {"annotations": {DELETION_COST: GOES_FIRST}}}
        try:
            with self._told(pool):
                pod = self._core.read_namespaced_pod(name, namespace, _request_timeout=TIMEOUT_S)
                if pod.metadata.deletion_timestamp is not None:
                    return False
                self._core.patch_namespaced_pod(name, namespace, marked, _request_timeout=TIMEOUT_S)
        except _Absent:
            return False
        except _Conflict as error:
            raise self._failed(pool, f"pod {name} was changed at the same moment") from error
        return True

    def _unmark(self, pool: str, names: Sequence[str]) -> None:
        """Have pods go no sooner than others any more: none is about to, and they have work again."""
        for name in names:
            # The look goes on without it, and the next one tries again.
            with suppress(DriverFailed, _Absent, _Conflict), self._told(pool):
                unmarked = {"metadata": {"annotations": {DELETION_COST: None}}}
                self._core.patch_namespaced_pod(
                    name, self._target(pool).namespace, unmarked, _request_timeout=TIMEOUT_S
                )

    def _write(self, pool: str, scale: Any, instances: int) -> None:
        """Write so many replicas, if nobody has written others since ``scale`` was read."""
        known = scale.spec.replicas
        self._looks.forget(pool)
        for _ in range(_TRIES):
            try:
                self._replace(pool, scale, instances)
                return
            except _Conflict:
                # Its version changes with its status too, as pods come up.
                scale = self._found(pool)
            except _Absent as error:
                raise self._failed(pool, _absent(self._target(pool))) from error
            if scale.spec.replicas != known:
                found = scale.spec.replicas
                raise self._failed(pool, f"somebody else has given {self._target(pool)} {found} replicas meanwhile")
        raise self._failed(pool, f"Deployment {self._target(pool)} changes all the time")

    def _replace(self, pool: str, scale: Any, instances: int) -> None:
        place = self._target(pool)
        body = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {
                "name": place.name,
                "namespace": place.namespace,
                "resourceVersion": scale.metadata.resource_version,
            },
            "spec": {"replicas": instances},
        }
        with self._told(pool):
            self._scales[pool] = self._apps.replace_namespaced_deployment_scale(
                place.name, place.namespace, body, _request_timeout=TIMEOUT_S
            )

    @contextmanager
    def _told(self, pool: str) -> Iterator[None]:
        """Tell what the cluster refuses in our words."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            if error.status == 404:
                raise _Absent from error
            if error.status == 409:
                raise _Conflict from error
            raise self._failed(pool, _refusal(error)) from error
        except (HTTPError, OSError) as error:
            raise self._failed(pool, f"the cluster cannot be reached: {type(error).__name__}") from error

    def _failed(self, pool: str, reason: str) -> DriverFailed:
        return DriverFailed(driver=self.name, pool=pool, reason=reason)


class _Absent(Exception):
    """There is no such object."""


class _Conflict(Exception):
    """It was changed since it was read."""


def make(setup: Setup) -> Driver:
    """The driver of the cluster that this runs in, else of the kubeconfig's; raises InvalidSetting without either."""
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise InvalidSetting(
            name="autoscale_driver",
            value="kubernetes",
            reason="its client is not installed: pip install 'agentq-celery[kubernetes]'",
        ) from error
    settings = client.Configuration()
    try:
        home = _configure(config, settings)
    except config.ConfigException as error:
        raise InvalidSetting(
            name="autoscale_driver",
            value="kubernetes",
            reason=f"this is no pod with a service account, and there is no usable kubeconfig: {error}",
        ) from error
    # The controller tries again by itself; the client's own three tries would hold all pools up.
    settings.retries = False
    api = client.ApiClient(settings)

    def target(pool: str) -> Place:
        namespace, _, name = setup.target(pool, "kubernetes").rpartition("/")
        return Place(namespace or home, name)

    return Kubernetes(apps=client.AppsV1Api(api), core=client.CoreV1Api(api), target=target)


def _configure(config: Any, settings: Any) -> str:
    """Settle where the cluster is and who we are there; return the namespace that counts where none is named."""
    try:
        config.load_incluster_config(client_configuration=settings)
        return _NAMESPACE.read_text(encoding="utf-8").strip()
    except config.ConfigException:
        # The client looks at the variable once, when it is imported.
        files = os.environ.get("KUBECONFIG") or None
        config.load_kube_config(config_file=files, client_configuration=settings)
    _, active = config.list_kube_config_contexts(config_file=files)
    return str(active["context"].get("namespace", "default"))


def _absent(place: Place) -> str:
    return f"there is no Deployment {place}: make it, or name it as the pool's `target`"


def _has_answered(error: DriverFailed) -> bool:
    """Whether the cluster is there, and refuses."""
    from kubernetes.client.exceptions import ApiException

    return isinstance(error.__cause__, ApiException)


def _refusal(error: Any) -> str:
    try:
        said = str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        said = str(error.reason)
    if error.status == 401:
        return f"the cluster does not know this service account, or its token has ended (401): {said}"
    if error.status == 403:
        return f"the service account may not do this (403): {said}"
    if error.status == 429:
        return f"the cluster's API is overloaded (429): {said}"
    return f"the cluster refused ({error.status}): {said}"


def _has_ended(pod: Any) -> bool:
    return pod.status is not None and pod.status.phase in ("Succeeded", "Failed")


def _is_marked(pod: Any) -> bool:
    return (pod.metadata.annotations or {}).get(DELETION_COST) == GOES_FIRST


def _instance(pod: Any, now: datetime) -> Instance:
    made = pod.metadata.creation_timestamp or now
    return Instance(
        name=pod.metadata.name,
        age_s=max(0.0, (now - made).total_seconds()),
        is_leaving=pod.metadata.deletion_timestamp is not None,
    )


def _trouble(pod: Any) -> str | None:
    """What keeps this pod from starting; None where nothing does, or time mends it."""
    status = pod.status
    if status is None or pod.metadata.deletion_timestamp is not None:
        return None
    for condition in status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False" and condition.reason == "Unschedulable":
            return f"pod {pod.metadata.name} finds no room: {condition.message}"
    for container in status.container_statuses or ():
        waiting = container.state.waiting if container.state is not None else None
        if waiting is not None and waiting.reason in _HOPELESS:
            return f"pod {pod.metadata.name} does not start: {waiting.reason}"
    return None
