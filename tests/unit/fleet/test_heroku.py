"""The driver of Heroku against a platform that answers as Heroku does."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agentq.core.errors import DriverFailed, InvalidSetting
from agentq.core.pools import PoolSpec
from agentq.fleet.drivers import Instance, Setup, make_driver
from agentq.fleet.drivers.heroku import LOOK_S, Heroku
from tests.kit.platforms import Answer, FakeHeroku


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def heroku() -> Iterator[FakeHeroku]:
    fake = FakeHeroku()
    fake.dynos = [
        {"name": "worker.1", "type": "worker", "state": "up", "created_at": "2026-05-01T11:58:20Z"},
        {"name": "web.1", "type": "web", "state": "up", "created_at": "2026-05-01T11:58:20Z"},
    ]
    with fake.serving():
        yield fake


def driver_of(fake: FakeHeroku, *, key: str = FakeHeroku.KEY, app: str = "shop", clock: Any = None) -> Heroku:
    return Heroku(app=app, key=SecretStr(key), target={"tools": "worker"}.get, api=fake.url, clock=clock or Clock())  # type: ignore[arg-type]


def test_what_there_is_of_a_pool_by_herokus_own_clock(heroku: FakeHeroku) -> None:
    heroku.formation["worker"] = 3
    heroku.dynos += [
        {"name": "worker.2", "type": "worker", "state": "starting", "created_at": "2026-05-01T11:59:59Z"},
        {"name": "worker.3", "type": "worker", "state": "down", "created_at": "2026-05-01T11:00:00Z"},
    ]
    seen = driver_of(heroku).observe(["tools"])["tools"]
    assert seen.wanted == 3
    assert seen.instances == (
        Instance("worker.1", 100.0),
        Instance("worker.2", 1.0),
        Instance("worker.3", 3600.0, is_leaving=True),
    )
    assert seen.trouble is None


def test_a_pool_is_sized_by_its_quantity_and_a_repeat_asks_for_nothing(heroku: FakeHeroku) -> None:
    driver = driver_of(heroku)
    for _ in range(2):
        driver.apply("tools", 4, fence=1)
    assert heroku.formation == {"worker": 4, "web": 2}
    assert [call.body for call in heroku.heard("PATCH")] == [{"quantity": 4}]
    assert driver.observe(["tools"])["tools"].wanted == 4


def test_looks_are_few(heroku: FakeHeroku) -> None:
    clock = Clock()
    driver = driver_of(heroku, clock=clock)
    for _ in range(60):
        driver.observe(["tools"])
        clock.now += 1
    assert len(heroku.calls) == 2 * 60 / LOOK_S


def test_all_pages_are_read(heroku: FakeHeroku) -> None:
    heroku.page = 2
    heroku.dynos = [
        {"name": f"worker.{number}", "type": "worker", "state": "up", "created_at": "2026-05-01T11:59:00Z"}
        for number in range(5)
    ]
    seen = driver_of(heroku).observe(["tools"])["tools"]
    assert seen.instances is not None
    assert [instance.name for instance in seen.instances] == [f"worker.{number}" for number in range(5)]


def test_a_platform_that_never_comes_to_an_end_is_left(heroku: FakeHeroku) -> None:
    clock, answer = Clock(), heroku.answer

    def endlessly(call: Any) -> Answer:
        clock.now += 1
        return Answer(206, [], {"Next-Range": "id ]..; max=1000"})

    driver = driver_of(heroku, clock=clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heroku, "answer", endlessly)
        with pytest.raises(DriverFailed, match="has not told everything within 10 s"):
            driver.observe(["tools"])
    assert heroku.answer == answer
    assert driver.observe(["tools"])["tools"].wanted == 1


def test_crashed_dynos_are_told(heroku: FakeHeroku) -> None:
    heroku.dynos[0]["state"] = "crashed"
    seen = driver_of(heroku).observe(["tools"])["tools"]
    assert seen.instances == ()
    assert seen.trouble == "1 dynos of worker have crashed: heroku logs --dyno worker"


def test_a_pool_without_a_process_type_is_told_and_the_others_are_served(heroku: FakeHeroku) -> None:
    driver = Heroku(app="shop", key=SecretStr(FakeHeroku.KEY), api=heroku.url)
    seen = driver.observe(["worker", "gpu"])
    assert seen["worker"].wanted == 1
    assert seen["gpu"].wanted is None
    assert 'no process type "gpu"' in (seen["gpu"].trouble or "")
    with pytest.raises(DriverFailed, match='no process type "gpu"'):
        driver.apply("gpu", 1, fence=1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(429, {"id": "rate_limit", "message": "Your account reached the API rate limit"}), "rate limit is used"),
        (Answer(500, {"id": "internal", "message": "oops"}), r"refused \(500\): oops"),
        (Answer(503, None), r"refused \(503\)"),
        (Answer(403, {"id": "forbidden", "message": "You do not have access"}), "may not scale app"),
        (Answer(302, None, {"Location": "http://127.0.0.1:1/elsewhere"}), r"refused \(302\)"),
        (Answer(200, "nonsense"), "not what its API promises"),
        (Answer(200, [{"type": "worker"}]), "not what its API promises"),
        (Answer(200, 5), "not what its API promises"),
        (Answer(200, "x" * (17 << 20)), "more than 16 MiB"),
    ],
)
def test_what_heroku_refuses_is_told_and_the_next_look_is_whole(heroku: FakeHeroku, answer: Answer, words: str) -> None:
    driver = driver_of(heroku)
    heroku.refuse = [answer]
    with pytest.raises(DriverFailed, match=words) as failed:
        driver.observe(["tools"])
    assert FakeHeroku.KEY not in str(failed.value)
    assert driver.observe(["tools"])["tools"].wanted == 1


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_an_order_that_heroku_refuses_changes_nothing_and_its_repeat_does(heroku: FakeHeroku, status: int) -> None:
    driver = driver_of(heroku)
    driver.observe(["tools"])
    heroku.refuse = [Answer(status, {"message": "not now"})]
    with pytest.raises(DriverFailed, match=rf"\({status}\)"):
        driver.apply("tools", 3, fence=1)
    assert heroku.formation["worker"] == 1
    driver.apply("tools", 3, fence=1)
    assert heroku.formation["worker"] == 3


def test_a_quantity_that_heroku_does_not_allow_is_told_in_its_words(heroku: FakeHeroku) -> None:
    with pytest.raises(DriverFailed, match=r"\(422\): Cannot update to more than 100 dynos"):
        driver_of(heroku).apply("tools", 200, fence=1)


def test_a_wrong_key_and_a_wrong_app_say_what_to_do(heroku: FakeHeroku, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DriverFailed, match="HEROKU_API_KEY") as failed:
        driver_of(heroku, key="HRKU-wrong").observe(["tools"])
    with pytest.raises(DriverFailed, match="HEROKU_APP_NAME"):
        driver_of(heroku, app="other").observe(["tools"])
    for text in (str(failed.value), repr(driver_of(heroku, key="HRKU-wrong")), caplog.text):
        assert "HRKU-wrong" not in text


def test_a_platform_that_is_away_is_told(heroku: FakeHeroku) -> None:
    driver = Heroku(app="shop", key=SecretStr("k"), api="http://127.0.0.1:1")
    with pytest.raises(DriverFailed, match="cannot be reached"):
        driver.observe(["tools"])


def test_it_is_made_of_two_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = {"tools": PoolSpec(name="tools", max=3, target="worker")}
    setup = Setup(pools=lambda: pools, store=None, command=lambda *_: ([], {}), folder=Path())  # type: ignore[arg-type]
    monkeypatch.delenv("HEROKU_API_KEY", raising=False)
    monkeypatch.setenv("HEROKU_APP_NAME", "shop")
    with pytest.raises(InvalidSetting, match="HEROKU_API_KEY is not set"):
        make_driver("heroku", setup)
    monkeypatch.setenv("HEROKU_API_KEY", "HRKU-1")
    driver = make_driver("heroku", setup)
    assert (driver.name, driver.chooses, driver.acts) == ("heroku", False, True)
    assert "HRKU-1" not in repr(driver)
