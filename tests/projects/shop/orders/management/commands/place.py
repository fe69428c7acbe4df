"""Place orders in one transaction and start their agents when it is committed; prints the orders' ids."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from tests.projects.shop.orders.models import Order
from tests.projects.shop.orders.tasks import fulfil, pack


class Refused(Exception):
    """The transaction's own end."""


class Command(BaseCommand):
    """``place ITEM [--rollback]``."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the item and the way the transaction ends."""
        parser.add_argument("item")
        parser.add_argument("--rollback", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        """Start inside the transaction, as a view would."""
        try:
            with transaction.atomic():
                order = Order.objects.create(item=options["item"])
                extra = Order.objects.create(item="extra")
                fulfil.using(key=f"order-{order.pk}").start_on_commit(order.pk)
                pack.delay_on_commit(extra.pk)
                if options["rollback"]:
                    raise Refused
        except Refused:
            pass
        self.stdout.write(json.dumps({"order": order.pk, "extra": extra.pk}))
