"""Steps and agents of the shop, found by ``autodiscover_tasks``."""

from __future__ import annotations

from agentq import Run, agent, step
from tests.projects.shop.orders.models import Order


@step
def pack(order_id: int) -> str:
    """The order must be there already: nothing may start before its transaction is committed."""
    order = Order.objects.get(pk=order_id)
    order.state = "packed"
    order.save()
    return order.item


@step
def ship(order_id: int) -> str:
    Order.objects.filter(pk=order_id).update(state="shipped")
    return Order.objects.get(pk=order_id).state


@agent(version="1")
async def fulfil(run: Run, order_id: int) -> str:
    item = await run.call(pack, order_id)
    state = await run.call(ship, order_id)
    return f"{item} {state}"
