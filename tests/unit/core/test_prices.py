"""Prices of models: what the file says, and what is wrong in it, by its line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from agentq.core.errors import InvalidFile
from agentq.core.prices import load_prices

GOOD = """
[models."gpt-4.1"]
usd_per_million_in = "2.00"
usd_per_million_out = 8

[models."local-*"]
usd_per_million_in = 0
usd_per_million_out = 0

[models."local-large-*"]
usd_per_million_in = 1
usd_per_million_out = 1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "models.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("model", "usd"),
    [("gpt-4.1", "1.00"), ("local-small", "0"), ("local-large-7", "0.1500"), ("gpt-4", None), (None, None)],
)
def test_a_model_has_its_price(tmp_path: Path, model: str | None, usd: str | None) -> None:
    prices = load_prices(written(tmp_path, GOOD))
    assert prices.usd(model, 100_000, 100_000 if model == "gpt-4.1" else 50_000) == (
        None if usd is None else Decimal(usd)
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[model.x]\n", 1, '"model" is unknown here'),
        ('[models."gpt-4.1"]\nusd_per_million_in = 1\n', 1, "usd_per_million_out: Field required"),
        ('[models."gpt-4.1"]\nusd_per_million_in = -1\nusd_per_million_out = 1\n', 2, "greater than or equal to 0"),
        ('\n[models."gpt-4.1"]\nusd_per_million_inn = 1\n', 3, "usd_per_million_in"),
        ('[models]\nx = "free"\n', 2, "must be a table"),
        ("models = 3\n", 1, "must be tables"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        load_prices(written(tmp_path, text))
    assert caught.value.line == line
    assert words in str(caught.value)
