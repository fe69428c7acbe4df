"""What is declared of tenants: in tables `[tenants.NAME]` of the pools file, `"*"` for whoever has none.

It must not know how tenants take turns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import Field, PositiveInt, ValidationError

from agentq.core.declared import checked_table, read_tables, told
from agentq.core.models import Model
from agentq.core.tomlfile import read_toml

EVERYBODY: Final = "*"
"""The table that holds for tenants without one of their own."""

_TABLE: Final = "tenants"


class TenantSpec(Model):
    """What one tenant may have."""

    name: str = Field(min_length=1)
    weight: PositiveInt = 1
    """Of its turns beside those of others: 2 gets two where others get one."""
    max_waiting: PositiveInt | None = None
    """More than so many of its steps that wait in a pool refuse a new start; None is no limit."""


def load_tenants(path: Path | str) -> dict[str, TenantSpec]:
    """The tenants that the file declares; raises InvalidFile with the line that is wrong."""
    file = read_toml(Path(path))
    found = {}
    for name, given in read_tables(file, _TABLE).items():
        table = checked_table(file, _TABLE, name, given, set(TenantSpec.model_fields) - {"name"})
        try:
            found[name] = TenantSpec(name=name, **table)
        except ValidationError as error:
            raise told(file, _TABLE, name, error) from error
    return found


def tenant_spec(tenants: Mapping[str, TenantSpec], tenant: str | None) -> TenantSpec | None:
    """What holds for a tenant: its own table, else everybody's; None for no tenant, and where nothing is declared."""
    if tenant is None:
        return None
    return tenants.get(tenant, tenants.get(EVERYBODY))
