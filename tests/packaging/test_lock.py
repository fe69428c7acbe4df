"""The locks hold what pyproject.toml asks for: changed there, they are to be renewed by ``./dev lock``."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.kit.process import ROOT


def locked(path: str) -> dict[str, str]:
    """Return the locked version of each package."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", (ROOT / path).read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): release for name, release in lines}


def wanted(*, extras: tuple[str, ...], groups: bool) -> list[Requirement]:
    """Return what pyproject.toml asks for here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [*project["project"]["dependencies"]]
    for extra in extras:
        lines += project["project"]["optional-dependencies"][extra]
    for group in project["dependency-groups"].values() if groups else ():
        lines += group
    found = [Requirement(line) for line in lines]
    return [each for each in found if each.marker is None or each.marker.evaluate()]


@pytest.mark.parametrize(("path", "groups"), [("requirements.lock", True), ("docker/requirements.lock", False)])
def test_a_lock_satisfies_the_project(path: str, groups: bool) -> None:
    releases = locked(path)
    for each in wanted(extras=("agents", "postgres"), groups=groups):
        release = releases.get(each.name.lower().replace("_", "-"))
        assert release is not None, f"{path} lacks {each.name}: ./dev lock"
        assert each.specifier.contains(release), (
            f"{path} has {each.name} {release}, wanted {each.specifier}: ./dev lock"
        )
