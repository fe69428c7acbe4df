"""A function's signature and type hints as the boundary that its calls and results cross.

It owns which calls fit, and how a signature is announced to applications that lack the code. It must not
know what carries a call.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, NoReturn, Self

from agentq.core.boundary import Boundary
from agentq.core.codec import to_jsonable
from agentq.core.error_base import ABSENT, near
from agentq.core.errors import InvalidArguments, InvalidResult
from agentq.core.hints import Signature, read_signature

Announced = dict[str, dict[str, Any]]
"""A signature as JSON: per parameter `schema`, `required`, `position` (None: by name only), and for `*args`
and `**kwargs` `rest`, which is `positional` or `keyword`."""


class CallSchema:
    """What may be called, how a call and its result are written as JSON, and how they are read again.

    Hints are resolved at the first use, not when the schema is made: they may name what stands further below
    in the module.
    """

    __slots__ = ("_function", "_plan", "_skip_first", "name")

    def __init__(self, function: Callable[..., Any], *, skip_first: bool, name: str) -> None:
        self.name = name
        self._function = function
        self._skip_first = skip_first
        self._plan: _Plan | None = None

    @classmethod
    def of(cls, function: Callable[..., Any], *, skip_first: bool = False, name: str | None = None) -> Self:
        """The schema of a function; `skip_first` leaves out its first parameter (`run`, a task's `self`).

        `name` is what errors call it; by default the function's own name.
        """
        if name is None:
            name = getattr(function, "__name__", None) or type(function).__name__
        return cls(function, skip_first=skip_first, name=name)

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments, validated and JSON-able, each where it was given; defaults are not filled in.

        Raises InvalidArguments that names the parameter and the value.
        """
        return self._crossed(args, kwargs, Boundary.write)

    def decode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The typed arguments that the JSON-able ones stand for.

        A producer need not have validated them, so InvalidArguments is raised here too.
        """
        read, named = self._crossed(args, kwargs, Boundary.read)
        return tuple(read), named

    def encode_result(self, value: Any) -> Any:
        """The result, validated by the return hint and JSON-able; raises InvalidResult."""
        try:
            return self._built().result.write(value)
        except ValueError as error:
            raise InvalidResult(step=self.name, value=value, reason=str(error)) from error

    def decode_result(self, jsonable: Any) -> Any:
        """The typed result; raises InvalidResult where it does not fit the hint (any more)."""
        try:
            return self._built().result.read(jsonable)
        except ValueError as error:
            raise InvalidResult(step=self.name, value=jsonable, reason=str(error)) from error

    def json_schema(self) -> Announced:
        """The signature for `check_call` in applications that lack the function."""
        plan = self._built()
        found = {each.name: _announced(each, position=place) for place, each in enumerate(plan.positional)}
        found |= {each.name: _announced(each, position=None) for each in plan.keyword_only}
        for rest, kind in ((plan.rest, "positional"), (plan.keyword_rest, "keyword")):
            if rest is not None:
                found[rest.name] = {**_announced(rest, position=None), "required": False, "rest": kind}
        return found

    def _built(self) -> "_Plan":
        plan = self._plan
        if plan is None:
            signature = read_signature(self._function, skip_first=self._skip_first, name=self.name)
            plan = self._plan = _Plan(signature)
        return plan

    def _crossed(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], cross: Callable[[Boundary, Any], Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        plan = self._built()
        plan.check_fit(self.name, args, kwargs)
        crossed = []
        named = {}
        parameter, value = "", None
        try:
            for place, value in enumerate(args):
                boundary = plan.at(place)
                parameter = boundary.name
                crossed.append(cross(boundary, value))
            for parameter, value in kwargs.items():
                named[parameter] = cross(plan.named(parameter), value)
        except ValueError as error:
            _refuse(self.name, parameter, str(error), value, error)
        return crossed, named


def check_call(
    announced: Announced, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The JSON-able arguments of a call that fits the announced signature.

    Raises InvalidArguments that names the parameter and the value. What JSON schema cannot say (a validator
    in Python, a date's calendar) is found by the worker alone.
    """
    plan = _Plan.of_announced(announced)
    plan.check_fit(name, args, kwargs)
    positional = []
    for place, value in enumerate(args):
        boundary = plan.at(place)
        schema = announced[boundary.name]["schema"]
        positional.append(check_value(schema, value, name=boundary.name, step=name))
    named = {}
    for key, value in kwargs.items():
        named[key] = check_value(announced[plan.named(key).name]["schema"], value, name=key, step=name)
    return positional, named


def check_value(schema: Mapping[str, Any], value: Any, *, name: str, step: str = "answer") -> Any:
    """The value as JSON can hold it, which fits the JSON schema.

    Raises InvalidArguments that calls the value by `name`, and what takes it `step`.
    """
    from jsonschema import Draft202012Validator  # Slow to import, and only such callers need it.
    from jsonschema.exceptions import best_match

    try:
        written = to_jsonable(value)
    except (TypeError, ValueError) as error:
        _refuse(step, name, str(error), value, error)
    wrong = best_match(Draft202012Validator(schema).iter_errors(written))
    if wrong is not None:
        place = ".".join(str(part) for part in wrong.absolute_path)
        _refuse(step, name, f"{place}: {wrong.message}" if place else wrong.message, value)
    return written


class _Plan:
    """The boundaries of one signature, by position and by name."""

    def __init__(self, signature: Signature) -> None:
        self.positional: list[Boundary] = []
        self.keyword_only: list[Boundary] = []
        self.by_name: dict[str, Boundary] = {}
        self.rest: Boundary | None = None
        self.keyword_rest: Boundary | None = None
        for parameter, hint in signature.parameters:
            self._add(parameter, hint)
        self.result = Boundary("return", signature.result, required=True)
        self.required_keywords = [each.name for each in self.keyword_only if each.required]

    @classmethod
    def of_announced(cls, announced: Announced) -> Self:
        """The plan of a signature whose function is elsewhere; its boundaries let every value pass."""
        parameters = []
        for name, about in sorted(announced.items(), key=lambda item: item[1]["position"] or 0):
            rest = {"positional": Parameter.VAR_POSITIONAL, "keyword": Parameter.VAR_KEYWORD}
            single = Parameter.KEYWORD_ONLY if about["position"] is None else Parameter.POSITIONAL_OR_KEYWORD
            kind = rest.get(about.get("rest", ""), single)
            default = Parameter.empty if about["required"] or kind in rest.values() else None
            parameters.append((Parameter(name, kind, default=default), Parameter.empty))
        return cls(Signature(parameters, Parameter.empty))

    def at(self, place: int) -> Boundary:
        """The parameter that takes the argument of this place; `check_fit` has found that one does."""
        found = self.positional[place] if place < len(self.positional) else self.rest
        assert found is not None
        return found

    def named(self, key: str) -> Boundary:
        """The parameter that takes the argument of this name; `check_fit` has found that one does."""
        found = self.by_name.get(key, self.keyword_rest)
        assert found is not None
        return found

    def check_fit(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """The number and the names of the arguments fit; raises InvalidArguments."""
        given = len(args)
        if given > len(self.positional) and self.rest is None:
            reason = f"there are {given} positional arguments, but it takes {len(self.positional)}"
            _refuse(name, str(len(self.positional) + 1), reason, args[len(self.positional)])
        for key in kwargs:
            if key not in self.by_name and self.keyword_rest is None:
                known = ", ".join(self.by_name) or "none"
                reason = f"there is no such parameter; known: {known}."
                reason += near(key, self.by_name)
                _refuse(name, key, reason.rstrip(".?"), kwargs[key])
        for place, boundary in enumerate(self.positional):
            self._check_once(name, boundary, by_place=place < given, kwargs=kwargs)
        for key in self.required_keywords:
            if key not in kwargs:
                _refuse(name, key, "it is missing")

    def _check_once(self, name: str, boundary: Boundary, *, by_place: bool, kwargs: Mapping[str, Any]) -> None:
        by_name = boundary.name in kwargs and boundary.name in self.by_name
        if by_place and by_name:
            _refuse(name, boundary.name, "it is given twice, by place and by name", kwargs[boundary.name])
        if boundary.required and not by_place and not by_name:
            _refuse(name, boundary.name, "it is missing")

    def _add(self, parameter: Parameter, hint: Any) -> None:
        boundary = Boundary(parameter.name, hint, required=parameter.default is Parameter.empty)
        match parameter.kind:
            case Parameter.VAR_POSITIONAL:
                self.rest = boundary
                return
            case Parameter.VAR_KEYWORD:
                self.keyword_rest = boundary
                return
            case Parameter.KEYWORD_ONLY:
                self.keyword_only.append(boundary)
            case _:
                self.positional.append(boundary)
        if parameter.kind is not Parameter.POSITIONAL_ONLY:
            self.by_name[parameter.name] = boundary


def _announced(boundary: Boundary, *, position: int | None) -> dict[str, Any]:
    return {"schema": boundary.json_schema(), "required": boundary.required, "position": position}


def _refuse(step: str, parameter: str, reason: str, value: Any = ABSENT, cause: Exception | None = None) -> NoReturn:
    raise InvalidArguments(step=step, parameter=parameter, value=value, reason=reason) from cause
