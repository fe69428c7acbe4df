"""Reads a function's signature with its hints resolved. It owns name look-up and what a hint stands for."""

import collections.abc
import inspect
import typing
from collections.abc import Callable
from inspect import Parameter
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from agentq.core.errors import UsageError

_ONCE: Final = (collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator)
"""Hints whose values can be read only once, so that writing them as JSON would use them up."""

_ANYTHING: Final = inspect.Signature(
    [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]
)


class Signature(NamedTuple):
    """`parameters` in their order; a hint is Parameter.empty where there is none."""

    parameters: list[tuple[Parameter, Any]]
    result: Any


def read_signature(function: Callable[..., Any], *, skip_first: bool, name: str) -> Signature:
    """The signature with all hints as types.

    Names are looked up in the module that defines the function (under its decorators) and in what it closes
    over. The first parameter's hint, if skipped, may name anything. A function that tells no signature takes
    anything. Raises UsageError for a hint that names nothing at run time.
    """
    inner = inspect.unwrap(function)
    try:
        signature = inspect.signature(inner)
    except NameError as error:
        raise _unresolved(name, "a parameter", inner, error) from error
    except ValueError:
        # Written in C, as time.time or os.getenv may be: it checks its arguments itself.
        signature = _ANYTHING
    parameters = list(signature.parameters.values())
    if skip_first:
        parameters = _without_first(parameters)
    scope = _scope(inner)
    found = [(each, _resolve(each.annotation, each.name, inner, scope, name)) for each in parameters]
    result = _resolve(signature.return_annotation, "return", inner, scope, name)
    return Signature(found, result)


def _without_first(parameters: list[Parameter]) -> list[Parameter]:
    if parameters and parameters[0].kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
        return parameters[1:]
    return parameters


def _scope(function: Callable[..., Any]) -> dict[str, Any]:
    scope = dict(getattr(function, "__globals__", {}))
    scope.update({parameter.__name__: parameter for parameter in getattr(function, "__type_params__", ())})
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    for free, cell in zip(code.co_freevars if code else (), cells, strict=False):
        try:
            scope[free] = cell.cell_contents
        except ValueError:
            continue  # Not assigned yet: a name that the hints cannot mean.
    return scope


def _resolve(hint: Any, parameter: str, function: Any, scope: dict[str, Any], name: str) -> Any:
    # One at a time: a hint that cannot be resolved is named, and the skipped one is never looked at.
    holder = SimpleNamespace(__annotations__={parameter: hint})
    try:
        resolved = typing.get_type_hints(holder, globalns=scope, localns=scope, include_extras=True)
    except (NameError, AttributeError, SyntaxError) as error:
        raise _unresolved(name, f'parameter "{parameter}"', function, error) from error
    return _meaning(resolved[parameter])


def _meaning(hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if hint in _ONCE or origin in _ONCE:
        arguments = typing.get_args(hint)
        return list.__class_getitem__(arguments[0]) if arguments else list
    return hint


def _unresolved(name: str, where: str, function: Any, error: Exception) -> UsageError:
    return UsageError(
        f'The type hint of {where} of "{name}" cannot be resolved: {error}. Define or import the name at '
        f"the top level of {function.__module__}, not only under TYPE_CHECKING or inside a function."
    )
