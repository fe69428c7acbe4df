"""The driver of Kubernetes, through the official client, against an API server that answers as the real one does."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentq.core.errors import DriverFailed, InvalidSetting
from agentq.core.pools import PoolSpec
from agentq.fleet.drivers import Setup, make_driver
from agentq.fleet.drivers.kubernetes import DELETION_COST, Kubernetes, Place
from agentq.fleet.drivers.looks import LOOKS_S
from tests.kit.platforms import Answer, FakeCluster

TOKEN = "ey-secret-token"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    fake = FakeCluster()
    fake.pod("tools-a")
    fake.pod("tools-b")
    fake.pod("other-a", of="other")
    with fake.serving():
        yield fake


@pytest.fixture
def driver(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubernetes:
    """As it is made where there is a kubeconfig."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, cluster.url)))
    made = made_driver(target="tools")
    assert isinstance(made, Kubernetes)
    return made


def kubeconfig(folder: Path, url: str) -> Path:
    file = folder / "kubeconfig"
    file.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: c, cluster: {{server: "{url}"}}}}]
users: [{{name: u, user: {{token: {TOKEN}}}}}]
contexts: [{{name: here, context: {{cluster: c, user: u, namespace: agents}}}}]
"""
    )
    return file


def made_driver(**fields: Any) -> Any:
    pools = {"pool": PoolSpec(name="pool", max=9, **fields)}
    setup = Setup(pools=lambda: pools, store=None, command=lambda *_: ([], {}), folder=Path())  # type: ignore[arg-type]
    return make_driver("kubernetes", setup)


def test_what_there_is_of_a_pool_is_its_deployment_and_its_own_pods(driver: Kubernetes, cluster: FakeCluster) -> None:
    cluster.pods["tools-b"]["metadata"]["deletionTimestamp"] = "2026-05-01T11:59:30Z"
    cluster.pod("tools-done", phase="Succeeded")
    seen = driver.observe(["pool"])["pool"]
    assert seen.wanted == 2
    assert seen.instances is not None
    assert {(each.name, each.is_leaving) for each in seen.instances} == {("tools-a", False), ("tools-b", True)}
    age = (datetime.now(UTC) - datetime(2026, 5, 1, 11, 59, tzinfo=UTC)).total_seconds()
    assert all(each.age_s == pytest.approx(max(age, 0), abs=30) for each in seen.instances)
    assert all(call.headers["authorization"] == f"Bearer {TOKEN}" for call in map(lowered, cluster.calls))


def lowered(call: Any) -> Any:
    headers = {name.lower(): value for name, value in call.headers.items()}
    return type(call)(call.method, call.path, call.query, headers, call.body)


def test_a_pool_is_sized_by_the_scale_subresource_and_a_repeat_changes_nothing(
    driver: Kubernetes, cluster: FakeCluster
) -> None:
    driver.observe(["pool"])
    for _ in range(2):
        driver.apply("pool", 5, fence=1)
    assert cluster.replicas["tools"] == 5
    assert len(cluster.heard("PUT")) == 1
    assert driver.observe(["pool"])["pool"].wanted == 5


def test_a_change_of_the_status_meanwhile_is_written_past(driver: Kubernetes, cluster: FakeCluster) -> None:
    driver.observe(["pool"])
    cluster.versions["tools"] += 1
    driver.apply("pool", 5, fence=1)
    assert cluster.replicas["tools"] == 5
    assert len(cluster.heard("PUT")) == 2


def test_what_somebody_else_has_changed_meanwhile_is_left_as_it_is(driver: Kubernetes, cluster: FakeCluster) -> None:
    driver.observe(["pool"])
    cluster.replicas["tools"], cluster.versions["tools"] = 7, 9
    with pytest.raises(DriverFailed, match="somebody else has given agents/tools 7 replicas meanwhile"):
        driver.apply("pool", 1, fence=1)
    assert cluster.replicas["tools"] == 7


def test_drained_pods_go_first_and_a_repeat_takes_none_along(driver: Kubernetes, cluster: FakeCluster) -> None:
    driver.drain("pool", ["tools-b"], fence=1)
    assert cluster.pods["tools-b"]["metadata"]["annotations"] == {DELETION_COST: "-1000"}
    assert cluster.pods["tools-a"]["metadata"]["annotations"] == {}
    assert cluster.replicas["tools"] == 1
    cluster.pods["tools-b"]["metadata"]["deletionTimestamp"] = "2026-05-01T12:00:00Z"
    driver.drain("pool", ["tools-b"], fence=1)
    del cluster.pods["tools-b"]
    driver.drain("pool", ["tools-b"], fence=1)
    assert cluster.replicas["tools"] == 1
    driver.drain("pool", [], fence=1)
    assert cluster.replicas["tools"] == 1


def test_a_drained_pod_goes_only_by_the_version_that_was_looked_at(driver: Kubernetes, cluster: FakeCluster) -> None:
    driver.observe(["pool"])
    # Another controller leads since, and has given it three more.
    cluster.replicas["tools"], cluster.versions["tools"] = 5, 9
    with pytest.raises(DriverFailed, match="somebody else has given agents/tools 5 replicas meanwhile"):
        driver.drain("pool", ["tools-b"], fence=1)
    assert cluster.replicas["tools"] == 5


def test_a_pod_that_stays_after_all_keeps_no_mark(driver: Kubernetes, cluster: FakeCluster) -> None:
    def marks() -> dict[str, str]:
        annotations: dict[str, str] = cluster.pods["tools-b"]["metadata"]["annotations"]
        return annotations

    clock = Clock()
    other = Kubernetes(apps=driver._apps, core=driver._core, target=lambda _: Place("agents", "tools"), clock=clock)
    other.drain("pool", ["tools-b"], fence=1)
    assert cluster.replicas["tools"] == 1
    other.observe(["pool"])
    assert marks() == {DELETION_COST: "-1000"}, "it goes as soon as the cluster comes to it"
    # Work has come, and it was given back to that one; the look goes on where the mark cannot be taken off.
    other.apply("pool", 2, fence=1)
    refused_at(cluster, 2, Answer(403, {"message": "not now"}))
    assert other.observe(["pool"])["pool"].wanted == 2
    assert marks() == {DELETION_COST: "-1000"}
    clock.now += 10
    other.observe(["pool"])
    assert marks() == {}
    calls = len(cluster.calls)
    clock.now += 10
    other.observe(["pool"])
    assert len(cluster.calls) == calls + 2


def test_what_keeps_pods_from_starting_is_told(driver: Kubernetes, cluster: FakeCluster) -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    cluster.pod("tools-c", phase="Pending", conditions=[condition])
    assert driver.observe(["pool"])["pool"].trouble == (
        "pod tools-c finds no room: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    )


def test_an_image_that_is_not_there_is_told_and_one_that_is_pulled_is_not(
    cluster: FakeCluster, driver: Kubernetes
) -> None:
    def waits(reason: str) -> dict[str, Any]:
        container = {"name": "worker", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        return {"phase": "Pending", "containerStatuses": [container | {"state": {"waiting": {"reason": reason}}}]}

    cluster.pod("tools-c", **waits("ContainerCreating"))
    assert driver.observe(["pool"])["pool"].trouble is None
    cluster.pod("tools-c", **waits("ImagePullBackOff"))
    driver.apply("pool", 3, fence=1)
    assert driver.observe(["pool"])["pool"].trouble == "pod tools-c does not start: ImagePullBackOff"


def test_looks_are_few(cluster: FakeCluster, driver: Kubernetes) -> None:
    clock = Clock()
    few = Kubernetes(apps=driver._apps, core=driver._core, target=lambda pool: Place("agents", "tools"), clock=clock)
    for _ in range(10):
        few.observe(["pool"])
        clock.now += 0.5
    assert len(cluster.calls) == 2 * 3


def test_of_a_slow_cluster_only_so_many_pods_are_marked_in_a_round(cluster: FakeCluster, driver: Kubernetes) -> None:
    clock, answer = Clock(), cluster.answer

    def slowly(call: Any) -> Answer:
        clock.now += LOOKS_S / 2
        return answer(call)

    slow = Kubernetes(apps=driver._apps, core=driver._core, target=lambda _: Place("agents", "tools"), clock=clock)
    slow.observe(["pool"])
    cluster.answer = slowly  # type: ignore[method-assign]
    slow.drain("pool", ["tools-a", "tools-b"], fence=1)
    marked = [name for name, pod in cluster.pods.items() if pod["metadata"]["annotations"]]
    assert (marked, cluster.replicas["tools"]) == (["tools-a"], 1), "one goes, and the other is told again"


def test_a_deployment_that_is_not_there_is_told_and_another_is_served(cluster: FakeCluster, driver: Kubernetes) -> None:
    both = Kubernetes(apps=driver._apps, core=driver._core, target=lambda pool: Place("agents", pool))
    seen = both.observe(["tools", "nobody"])
    assert seen["tools"].wanted == 2
    assert (seen["nobody"].wanted, seen["nobody"].instances) == (None, None)
    assert "there is no Deployment agents/nobody" in (seen["nobody"].trouble or "")
    for change in (lambda: both.apply("nobody", 1, fence=1), lambda: both.drain("nobody", ["x"], fence=1)):
        with pytest.raises(DriverFailed, match="there is no Deployment agents/nobody"):
            change()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401, {"message": "Unauthorized"}), "does not know this service account"),
        (Answer(403, {"message": "cannot get resource deployments/scale"}), "may not do this .403.: cannot get"),
        (Answer(429, {"message": "too many requests"}), "overloaded"),
        (Answer(500, None), "refused .500."),
    ],
)
def test_what_the_cluster_refuses_is_told(driver: Kubernetes, cluster: FakeCluster, answer: Answer, words: str) -> None:
    cluster.refuse = [answer]
    with pytest.raises(DriverFailed, match=words) as failed:
        driver.observe(["pool"])
    assert TOKEN not in str(failed.value)
    assert TOKEN not in repr(driver)
    assert driver.observe(["pool"])["pool"].wanted == 2


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_an_order_that_the_cluster_refuses_changes_nothing_and_its_repeat_does(
    driver: Kubernetes, cluster: FakeCluster, status: int
) -> None:
    driver.observe(["pool"])
    cluster.refuse = [Answer(status, {"message": "not now"})]
    with pytest.raises(DriverFailed, match=rf"\({status}\): not now") as failed:
        driver.apply("pool", 4, fence=1)
    assert TOKEN not in str(failed.value)
    assert cluster.replicas["tools"] == 2
    driver.apply("pool", 4, fence=1)
    assert cluster.replicas["tools"] == 4
    for number in range(3):
        # Between the mark and the number, or before either: the pod goes once.
        cluster.pod("tools-a")
        cluster.replicas["tools"] = 2
        driver = made_driver(target="tools")
        refused_at(cluster, number, Answer(status, {"message": "not now"}))
        with pytest.raises(DriverFailed):
            driver.drain("pool", ["tools-a"], fence=1)
        assert cluster.replicas["tools"] == 2
        driver.drain("pool", ["tools-a"], fence=1)
        assert cluster.replicas["tools"] == 1


def refused_at(cluster: FakeCluster, number: int, refusal: Answer) -> None:
    """Have the cluster refuse the call after so many others."""
    answer, calls = type(cluster).answer, iter(range(number + 1))

    def counted(call: Any) -> Answer:
        if next(calls, None) == number:
            return refusal
        return answer(cluster, call)

    cluster.answer = counted  # type: ignore[method-assign]


def test_one_namespace_that_may_not_be_seen_does_not_stand_in_the_way_of_the_others(
    driver: Kubernetes, cluster: FakeCluster
) -> None:
    both = Kubernetes(apps=driver._apps, core=driver._core, target=lambda pool: Place("agents", pool))
    cluster.refuse = [Answer(403, {"message": "forbidden"})]
    seen = both.observe(["hidden", "tools"])
    assert seen["hidden"].is_unknown
    assert "may not do this (403): forbidden" in (seen["hidden"].trouble or "")
    assert (seen["tools"].wanted, seen["tools"].is_unknown) == (2, False)


def test_a_pool_that_has_just_left_the_pools_file_is_no_mistake(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, cluster.url)))
    with pytest.raises(DriverFailed, match='"gone": the pools file does not declare it any more'):
        made_driver().apply("gone", 1, fence=1)


def test_a_cluster_that_is_away_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "http://127.0.0.1:1")))
    with pytest.raises(DriverFailed, match="cannot be reached"):
        made_driver().observe(["pool"])


def test_another_namespace_is_named_in_the_target(cluster: FakeCluster, driver: Kubernetes) -> None:
    other = made_driver(target="elsewhere/tools")
    assert "there is no Deployment elsewhere/tools" in other.observe(["pool"])["pool"].trouble


def test_without_a_cluster_it_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InvalidSetting, match="no pod with a service account"):
        made_driver()
