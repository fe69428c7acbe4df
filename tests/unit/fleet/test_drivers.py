"""Which driver is meant: names, and makers of somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentq.core.errors import InvalidSetting
from agentq.core.pools import PoolSpec
from agentq.fleet.drivers import Setup, make_driver
from agentq.fleet.drivers.pull import Pull

SETUP = Setup(lambda: {"tools": PoolSpec(name="tools", max=2)}, None, lambda *_: ([], {}), Path())  # type: ignore[arg-type]


class HalfADriver:
    name, chooses, acts = "half", False, True

    def observe(self, pools: Any) -> Any:
        return {}


def half(setup: Setup) -> HalfADriver:
    return HalfADriver()


def whole(setup: Setup) -> Pull:
    return Pull()


def raises(setup: Setup) -> Pull:
    raise KeyError("sk-secret")


def test_a_maker_of_somebody_elses_is_called() -> None:
    assert make_driver(f"{__name__}:whole", SETUP).name == "pull"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cloud", "there is no such driver: it is one of heroku, kubernetes, local, pull"),
        ("", "there is no such driver"),
        (":", "its maker cannot be imported"),
        (":make", "its maker cannot be imported"),
        (".relative:make", "its maker cannot be imported"),
        ("no.such.module:make", "its maker cannot be imported: ModuleNotFoundError"),
        ("os:no_such", "its maker cannot be imported: AttributeError"),
        ("os:sep", "sep is no function that makes one"),
        (f"{__name__}:half", "the HalfADriver that it makes is no driver: it has no apply, drain, close"),
        ("builtins:str", "is no driver: it has no name"),
        (f"{__name__}:raises", "its maker raised KeyError"),
    ],
)
def test_what_is_no_driver_is_refused_with_the_reason(name: str, words: str) -> None:
    with pytest.raises(InvalidSetting, match=words) as refused:
        make_driver(name, SETUP)
    assert "sk-secret" not in str(refused.value)


def test_a_module_that_breaks_when_it_is_loaded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_platform.py").write_text("def make(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidSetting, match="cannot be imported: SyntaxError"):
        make_driver("broken_platform:make", SETUP)
