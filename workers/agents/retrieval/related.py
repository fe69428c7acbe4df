"""Words of technical English that ask for the same thing: a small thesaurus, general on purpose.

A question says "kept" where the documents say "stored" or "persisted". Round one looks for both; what a
folder's own words for a thing are, its own passages tell (see `refining`). Owns the groups, knows no scores.
"""

from functools import cache

from workers.agents.retrieval.words import stem

MOST = 8
"""Related terms of one asked term."""

_GROUPS = (
    "keep store save persist hold retain preserve record",
    "resume recover restart continue replay restore",
    "crash fail die kill interrupt abort terminate",
    "failure error fault exception outage crash",
    "state checkpoint snapshot journal",
    "remember memory recall",
    "begin start launch initiate",
    "end finish complete stop",
    "make create build generate produce",
    "remove delete drop erase discard purge",
    "change modify update alter edit",
    "choose select pick decide",
    "send deliver publish emit dispatch",
    "get fetch retrieve obtain read",
    "receive accept consume",
    "wait block pause sleep suspend",
    "retry repeat rerun redo",
    "fast quick speed performance latency",
    "slow delay lag latency",
    "big large huge",
    "small tiny little",
    "cost price expense money budget",
    "limit bound cap quota throttle",
    "safe secure protect",
    "check verify validate test confirm",
    "show display present print",
    "find search locate discover look",
    "fix repair correct solve resolve",
    "avoid prevent",
    "need require must",
    "allow permit enable",
    "deny refuse reject forbid",
    "help assist support",
    "split divide partition shard",
    "join merge combine aggregate",
    "install setup deploy",
    "configure setting option parameter configuration",
    "task job activity",
    "step stage phase",
    "queue backlog",
    "worker executor",
    "parallel concurrent simultaneous",
    "duplicate twice double idempotent",
    "exact precise accurate",
    "measure metric monitor observe",
    "order sequence priority",
    "person human people user",
    "company firm business organization",
    "buy purchase acquire",
    "teach learn train",
    "increase grow rise raise",
    "decrease reduce shrink lower",
    "cause reason why",
    "advantage benefit strength",
    "disadvantage drawback weakness downside",
    "important essential critical crucial",
    "difficult hard challenging",
    "easy simple straightforward",
)


@cache
def _table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for group in _GROUPS:
        stems = list(dict.fromkeys(stem(word) for word in group.split()))
        for term in stems:
            others = table.setdefault(term, [])
            others.extend(other for other in stems if other != term and other not in others)
    return table


def related(term: str) -> list[str]:
    """The terms of about the same meaning, nearest first; empty for most."""
    return _table().get(term, [])[:MOST]
