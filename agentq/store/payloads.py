"""Large values beside the records: arguments of steps, results of local calls. Each lies in a key of its own.

A message goes through lanes, hands and logs, and a script that touches it carries all of it. What is written here has
an end until a script takes it over for the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agentq.store.connection import StoreConnection
from agentq.store.refs import Join, Offer

Stow = Callable[[Offer], tuple[Offer, str | None]]
"""Gives the offer with a reference in place of its large arguments, and these; None for one that stays as it is."""


class PayloadCalls(StoreConnection):
    """Writes large values ahead of the script that refers to them, and reads them."""

    stow: Stow | None = None
    """How arguments are taken out of a message; None leaves every message as it is."""

    inline_bytes: int = 0
    """``stow`` leaves a message of no more bytes as it is, so that it need not be asked."""

    def payload(self, root: str, name: str) -> bytes | None:
        """Return a large value as JSON; None when it is gone."""
        found: bytes | None = self.guarded(lambda: self.client.get(self.keys.payload(root, name)))
        return found

    def put_payloads(self, root: str, values: Sequence[tuple[str, str]]) -> None:
        """Write values by name; those that are there stay. They end with the retention unless a script adopts them."""
        for name, text in values:
            key = self.keys.payload(root, name)
            self.guarded(lambda key=key, text=text: self.client.set(key, text, nx=True, px=self.retention_ms))  # type: ignore[misc]

    def stowed(self, offers: Sequence[Offer]) -> list[Offer]:
        """Return the offers as they are sent; their large arguments are written."""
        if self.stow is None:
            return list(offers)
        found: list[Offer] = []
        for offer in offers:
            small, text = self.stow(offer)
            if text is not None and small.payload is not None:
                self.put_payloads(small.root, [(small.payload, text)])
            found.append(small)
        return found

    def stowed_bodies(self, joins: Sequence[Join]) -> list[Join]:
        """Return the joins as they are opened; their bodies' large arguments are written."""
        bodies = [self.stowed([join.body])[0] if join.body is not None else None for join in joins]
        return [replace(join, body=body) for join, body in zip(joins, bodies, strict=True)]
