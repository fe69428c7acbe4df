"""How long a step waits for a free slot, by queueing theory. It knows rates and times, no pools and no workers.

The formulas are those of a queue with several servers: Erlang's C for the chance to wait at all
(https://en.wikipedia.org/wiki/Erlang_(unit)#Erlang_C_formula), and the correction of Allen and Cunneen for arrivals
and service times that vary more, or less, than those of a telephone exchange.
"""

from math import ceil, exp, inf, log


def waiting_chance(slots: int, load: float) -> float:
    """The chance that an arrival finds all slots busy.

    `load` is the offered work in slots: rate times service time. 1 where the slots cannot carry it.
    """
    if load <= 0:
        return 0.0
    if slots <= load:
        return 1.0
    blocked = _blocking(slots, load)
    return slots * blocked / (slots - load * (1 - blocked))


def wait_at(quantile: float, *, slots: int, rate: float, service_s: float, variation: float = 1.0) -> float:
    """Seconds within which this share of the steps starts; infinite where the slots cannot carry the load.

    Args:
        quantile: between 0 and 1, 0.95 for a p95.
        slots: steps at once, all workers together.
        rate: arrivals per second.
        service_s: mean seconds that a step takes.
        variation: the mean of the squared coefficients of variation of the times between arrivals and of the service
            times; 1 for random ones, 0 for a clockwork.
    """
    load = rate * service_s
    if load <= 0:
        return 0.0
    if slots <= load:
        return inf
    chance = waiting_chance(slots, load)
    if chance <= 1 - quantile:
        return 0.0
    return log(chance / (1 - quantile)) * variation * service_s / (slots - load)


def slots_for(
    wait_s: float,
    *,
    quantile: float,
    rate: float,
    service_s: float,
    variation: float = 1.0,
    most: int | None = None,
) -> int:
    """The fewest slots with which this share of the steps starts within `wait_s` seconds.

    Of a load that needs more than `most` it is not asked how many: the answer is `most`.
    """
    load = rate * service_s
    if load <= 0:
        return 0
    # Erlang's B is a recursion over the number of slots: one walk upwards instead of one for each number tried.
    slots, blocked = 0, 1.0
    fewest = ceil(load)
    if most is not None and fewest >= most:
        return most
    while slots != most:
        slots += 1
        blocked = load * blocked / (slots + load * blocked)
        if slots <= load or slots < fewest:
            continue
        chance = slots * blocked / (slots - load * (1 - blocked))
        if variation <= 0 or chance * exp(-(slots - load) * wait_s / (variation * service_s)) <= 1 - quantile:
            break
    return slots


def _blocking(slots: int, load: float) -> float:
    blocked = 1.0
    for number in range(1, slots + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked
