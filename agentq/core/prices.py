"""What models cost, by `models.toml`. It must not know who spends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from agentq.core.error_base import near
from agentq.core.models import Model, Usd
from agentq.core.tomlfile import TomlFile, read_toml

_MILLION: Final = Decimal(1_000_000)
_TABLE: Final = "models"


class Price(Model):
    """Of one model, in US dollars for a million tokens."""

    usd_per_million_in: Usd
    usd_per_million_out: Usd


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of all models that the file names; a name that ends in `*` stands for all that begin so."""

    models: Mapping[str, Price] = field(default_factory=dict)

    def of(self, model: str) -> Price | None:
        """The price of a model, by its own name, else by the longest beginning; None when there is none."""
        if model in self.models:
            return self.models[model]
        begun = [name for name in self.models if name.endswith("*") and model.startswith(name[:-1])]
        return self.models[max(begun, key=len)] if begun else None

    def usd(self, model: str | None, tokens_in: int, tokens_out: int) -> Decimal | None:
        """What so many tokens cost; None for a model without a price."""
        price = self.of(model) if model is not None else None
        if price is None:
            return None
        return (price.usd_per_million_in * tokens_in + price.usd_per_million_out * tokens_out) / _MILLION


def load_prices(path: Path | str) -> Prices:
    """The prices that the file tells, each in a table `[models."NAME"]`; raises InvalidFile with the line."""
    file = read_toml(Path(path))
    for key in file.values:
        if key != _TABLE:
            raise file.wrong(f'"{key}" is unknown here: prices stand in tables [models."NAME"]', key)
    tables = file.values.get(_TABLE, {})
    if not isinstance(tables, dict):
        raise file.wrong('models must be tables [models."NAME"]', _TABLE)
    return Prices({name: _price(file, name, table) for name, table in tables.items()})


def _price(file: TomlFile, name: str, table: Any) -> Price:
    if not isinstance(table, dict):
        raise file.wrong(f'model {name} must be a table [models."{name}"]', _TABLE, name)
    fields = set(Price.model_fields)
    for key in table:
        if key not in fields:
            known = ", ".join(sorted(fields))
            reason = f'model {name}: "{key}" is unknown; known: {known}.{near(key, fields)}'
            raise file.wrong(reason, _TABLE, name, key)
    try:
        return Price.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [str(part) for part in first["loc"]][:1]
        given = "" if first["type"] == "missing" else f" (given: {first['input']!r})"
        raise file.wrong(f"model {name}: {'.'.join(place)}: {first['msg']}{given}", _TABLE, name, *place) from error
