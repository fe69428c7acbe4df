"""The tools of `assistant`, each a step: read a file, search the folder, calculate.

Owns what a model may touch: files under AGENTQ_TOOLS_ROOT (else the worker's working directory), and arithmetic. What
a tool refuses is a sentence that the model reads, not a failed step: the model may do better at its next call.
"""

import ast
import json
import math
import operator
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentq import Retry, Step, step
from agentq.settings import Settings
from workers.agents.retrieval import choosing, listing, refining, scoring, words
from workers.agents.retrieval.models import Quotation, Slice
from workers.agents.retrieval.reading import BLOCK_BREAK, HEADING_BREAK, Unreadable, read_slice

READ_BYTES = 64 * 1024
"""The most that one call reads of a file: more would fill a model's context."""
SEARCH_PARTS = 400
"""Search looks no further: a step is no place for a large folder, `research` is."""
MOST_DIGITS = 300
"""Of a whole number that a calculation may come to."""
MOST_NODES = 200
"""Of an expression."""


class Refused(Exception):
    """The tool will not do this; its text says why, to the model."""


def tools_root() -> Path:
    """The folder beyond which no tool reaches: the setting, else the worker's working directory."""
    root = Settings.load().tools_root
    return (Path() if root is None else root).expanduser().resolve()


def read_under(root: Path, path: str) -> str:
    """The text of a file under the root, at most `READ_BYTES` of it. Raises Refused."""
    try:
        target = (root / path).resolve()
        is_file = target.is_file()
    except (OSError, ValueError) as problem:  # a name that is too long, a zero byte
        raise Refused(f"{path[:80]!r} is no path") from problem
    if not target.is_relative_to(root):
        raise Refused(f"{path!r} lies outside the folder that tools may read")
    if not is_file:
        raise Refused(f"there is no file {path!r}")
    kind = listing.KINDS.get(target.suffix.lower(), "text")
    size = target.stat().st_size
    name = target.relative_to(root).as_posix()
    piece = Slice(file=name, kind=kind, end=None if kind == "pdf" else READ_BYTES)
    try:
        text = "\n".join(page.text for page in read_slice(str(root), piece))[:READ_BYTES]
        text = text.replace(BLOCK_BREAK, "\n").replace(HEADING_BREAK, "\n")
    except Unreadable as problem:
        raise Refused(f"{path!r} cannot be read: {problem}") from problem
    return text if size <= READ_BYTES else f"{text}\n[cut here: the file has {size:,} bytes]"


def quotations_under(root: Path, question: str) -> list[Quotation]:
    """Quotations from the folder, best first: both rounds of `research`, here and now. Raises Refused."""
    asked = words.question_words(question)
    if not asked.terms:
        raise Refused("the question holds no word to look for")
    found = listing.list_files(str(root))
    parts = listing.plan_parts(str(root), found.slices)[:SEARCH_PARTS]
    first = refining.first_query(list(asked.terms), parts=len(parts))
    surveys = [scoring.survey_part(part, first) for part in parts]
    query = refining.refine(first, surveys, parts=len(parts))
    results = [scoring.search_part(part, query) for part in parts]
    finalists = refining.finalists(query, results, sum(survey.passages for survey in surveys))
    return [choosing.quotation(value, candidate) for value, candidate in choosing.choose(finalists)]


def search_under(root: Path, question: str) -> str:
    """Quotations with their places, one a line. Raises Refused."""
    found = quotations_under(root, question)
    return "\n".join(f"{one.file}:{one.line}: {one.text}" for one in found) or "Nothing was found in the folder."


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_NAMES: dict[str, float] = {"pi": math.pi, "e": math.e}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs, "round": round, "min": min, "max": max, "sqrt": math.sqrt, "log": math.log, "log10": math.log10,
    "exp": math.exp, "sin": math.sin, "cos": math.cos, "tan": math.tan, "floor": math.floor, "ceil": math.ceil,
}  # fmt: skip


def evaluate(expression: str) -> str:
    """The value of an arithmetic expression. Raises Refused, also for a number of more than `MOST_DIGITS` digits."""
    try:
        tree = ast.parse(expression.strip().replace("^", "**"), mode="eval")
        if sum(1 for _ in ast.walk(tree)) > MOST_NODES:
            raise Refused("the expression is too long")
        return _shown(_value(tree.body))
    except SyntaxError as problem:
        raise Refused(f"{expression!r} is no arithmetic expression") from problem
    except (ArithmeticError, ValueError, TypeError, RecursionError, MemoryError) as problem:
        raise Refused(f"{expression!r} has no value: {problem}") from problem


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return _bounded(node.value)
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _bounded(_BINARY[type(sign)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*(_value(argument) for argument in given)))
    raise Refused(f"only numbers, + - * / // % **, brackets and {', '.join(_FUNCTIONS)} are allowed")


def _power(base: Any, exponent: Any) -> Any:
    # Refused before it is computed: 9**9**9 would take the machine down.
    if abs(base) > 1 and abs(exponent) * math.log10(abs(base)) > MOST_DIGITS:
        raise Refused(f"{base}**{exponent} has more than {MOST_DIGITS} digits")
    return _bounded(base**exponent)


def _bounded(value: Any) -> Any:
    if isinstance(value, complex):
        raise Refused("the value is not a real number")
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        raise Refused(f"a number has more than {MOST_DIGITS} digits")
    return value


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:.12g}"


@step(pool="tools", retry=Retry(attempts=4), timeout=timedelta(seconds=60))
def read_file(path: str) -> str:
    """Read a text, Markdown, HTML or PDF file; the path is relative to the folder."""
    return _answer(lambda: read_under(tools_root(), path))


@step(pool="tools", retry=Retry(attempts=4), timeout=timedelta(minutes=5))
def search_folder(question: str) -> str:
    """Search the folder's documents and get quotations with file and line."""
    return _answer(lambda: search_under(tools_root(), question))


@step(pool="tools", timeout=timedelta(seconds=30))
def calculate(expression: str) -> str:
    """Calculate an arithmetic expression such as (3 + 4) * sqrt(2)."""
    return _answer(lambda: evaluate(expression))


def _answer(work: Callable[[], str]) -> str:
    try:
        return work()
    except Refused as reason:
        return f"Refused: {reason}."


TOOLS: Mapping[str, tuple[Step[[str], str], str]] = {
    "read_file": (read_file, "path"),
    "search_folder": (search_folder, "question"),
    "calculate": (calculate, "expression"),
}
"""Each tool by the name that the model calls, and its one argument."""


def described() -> list[dict[str, Any]]:
    """The tools as the model's protocol describes them."""
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": (tool.__doc__ or "").strip(),
                "parameters": {
                    "type": "object",
                    "properties": {argument: {"type": "string"}},
                    "required": [argument],
                },
            },
        }
        for name, (tool, argument) in TOOLS.items()
    ]


def argument_of(name: str, arguments: str) -> str:
    """The tool's one argument out of the JSON that the model wrote. Raises Refused."""
    if name not in TOOLS:
        raise Refused(f"there is no tool {name!r}; there are {', '.join(TOOLS)}")
    wanted = TOOLS[name][1]
    try:
        given = json.loads(arguments or "{}")
    except ValueError as problem:
        raise Refused(f"the arguments are not JSON: {arguments[:80]!r}") from problem
    if not isinstance(given, dict) or not isinstance(given.get(wanted), str | int | float):
        raise Refused(f"{name} needs the argument {wanted!r}")
    return str(given[wanted])
