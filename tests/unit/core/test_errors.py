"""Every error crosses processes as itself, and says what happened and what to do."""

import json
import pickle
from typing import Any

import pytest

from agentq.core import errors
from agentq.core.errors import AgentqError, GetTimeout, InvalidArguments, StaleHolder, from_wire

SAMPLES: dict[type[AgentqError], dict[str, Any]] = {
    errors.InvalidArguments: {"step": "answer", "parameter": "n", "value": "abc", "reason": "it is no number"},
    errors.InvalidResult: {"step": "answer", "value": {"a": 1}, "reason": "it is no list"},
    errors.InvalidSetting: {"name": "AGENTQ_X", "value": "abc", "reason": "unknown", "source": "environment"},
    errors.InvalidFile: {"file": "pools.toml", "line": 7, "reason": "no such key"},
    errors.UnknownAgent: {"name": "reserch", "known": ["research", "assistant"]},
    errors.UnknownPool: {"name": "modl", "known": ["model", "tools"]},
    errors.NoPoolFor: {
        "step": "answer",
        "needs": {"gpu": "a100"},
        "pools": {"model": {"gpu": "t4"}, "tools": {}},
        "pool": "model",
    },
    errors.DevicesMissing: {
        "pool": "gpu",
        "tags": {"gpu": "a100"},
        "found": ["l4 (24 GB)"],
        "reason": "AGENTQ_GPUS=l4",
    },
    errors.DeviceTaken: {"pool": "gpu"},
    errors.KeyReused: {"key": "req-42", "run_id": "r-1"},
    errors.NotInRun: {"what": "run.sleep"},
    errors.RunNotFound: {"run_id": "r-1"},
    errors.RunFailed: {
        "run_id": "r-1",
        "agent": "research",
        "error": {"code": "usage_error", "fields": {"message": "no"}},
    },
    errors.RunCancelled: {"run_id": "r-1", "why": "not needed"},
    errors.StepFailed: {
        "step": "answer",
        "step_id": "s-1",
        "error_type": "ValueError",
        "message": "no",
        "details": {"traceback": "..."},
    },
    errors.StepTimeout: {"step": "answer", "step_id": "s-1", "seconds": 1.5},
    errors.TurnTimeout: {"step": "research", "step_id": "r-1", "seconds": 60.0},
    errors.ResultRefused: {"step": "answer", "value": "maybe", "reason": "its check= says no"},
    errors.StepCondemned: {"step": "answer", "step_id": "s-1", "reason": "its attempts died 3 times in a row"},
    errors.JoinFailed: {
        "join_id": "j-1",
        "succeeded": 1,
        "need": 2,
        "size": 3,
        "first": {"code": "usage_error", "fields": {"message": "first failure"}},
    },
    errors.BudgetExceeded: {"limit_name": "usd", "limit": "2.00", "used": "2.01"},
    errors.ReplayMismatch: {"run_id": "r-1", "recorded": "call plan", "asked": "call answer"},
    errors.LetterNotFound: {"letter_id": "s-1"},
    errors.JournalUnreadable: {"entry": "{}", "reason": "it lacks 'k'"},
    errors.StaleHolder: {
        "step": "plan",
        "run_id": "r_7f3",
        "holder": "w_91",
        "take": 5,
        "mine": "w_42",
        "my_take": 4,
    },
    errors.CalledOff: {"step": "plan", "run_id": "r_7f3"},
    errors.Superseded: {"pool": "tools", "fence": 4, "newest": 5},
    errors.StoreUnavailable: {"url": "redis://localhost", "reason": "refused"},
    errors.QueueFull: {"pool": "tools", "waiting": 100, "limit": 100, "tenant": "acme", "wait_s": 2.5},
    errors.ArchiveUnavailable: {"url": "sqlite:///archive.db", "reason": "disk full"},
    errors.NoWorkers: {"pools": ["model", "tools"]},
    errors.BreakerOpen: {"name": "llm", "retry_after": 2.5},
    errors.LimitReached: {"name": "llm", "retry_after": 2.5},
    errors.DriverFailed: {"driver": "kubernetes", "pool": "tools", "reason": "403 forbidden"},
    errors.GetTimeout: {"run_id": "r-1", "seconds": 60.0},
}
PLAIN = (errors.AgentqError, errors.UsageError, errors.RunError, errors.OwnershipLost, errors.Unavailable)

EVERY: list[AgentqError] = [
    *[cls(**fields) for cls, fields in SAMPLES.items()],
    *[cls("it did not work") for cls in PLAIN],
]


def _subclasses(cls: type[AgentqError]) -> set[type[AgentqError]]:
    return {cls}.union(*[_subclasses(each) for each in cls.__subclasses__() if each.__module__.startswith("agentq")])


def test_every_error_of_the_tree_is_among_the_samples() -> None:
    assert _subclasses(AgentqError) == {type(error) for error in EVERY}


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.code)
def test_an_error_crosses_json_and_pickle_as_itself(error: AgentqError) -> None:
    through_json = from_wire(json.loads(json.dumps(error.to_wire())))
    through_pickle = pickle.loads(pickle.dumps(error))  # noqa: S301
    for copy in (through_json, through_pickle):
        assert type(copy) is type(error)
        assert copy == error
        assert str(copy) == str(error)
        assert copy.to_wire() == error.to_wire()
        assert copy.retryable == error.retryable


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.code)
def test_a_message_holds_every_field(error: AgentqError) -> None:
    silent = {"details", "error_type"} if isinstance(error, errors.StepFailed) else set()
    for name, value in error.fields.items():
        if name not in silent and isinstance(value, str | int | float):
            assert f"{value:g}" if isinstance(value, float) else str(value) in str(error), name


def test_codes_are_unique_and_stand_in_the_drawn_tree() -> None:
    classes = _subclasses(AgentqError)
    assert len({cls.code for cls in classes}) == len(classes)
    assert errors.__doc__ is not None
    for cls in classes:
        assert cls.__name__ in errors.__doc__
        assert cls.__name__ in errors.__all__


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Unavailable", True),
        ("StoreUnavailable", True),
        ("ArchiveUnavailable", True),
        ("GetTimeout", True),
        ("StepTimeout", True),
        ("StepFailed", False),
        ("InvalidArguments", False),
        ("StaleHolder", False),
        ("BudgetExceeded", False),
    ],
)
def test_only_what_may_work_later_is_retryable(name: str, expected: bool) -> None:
    assert getattr(errors, name).retryable is expected


def test_who_holds_the_step_is_said_as_the_house_says_it() -> None:
    error = StaleHolder(step="plan", run_id="r_7f3", holder="w_91", take=5, mine="w_42", my_take=4)
    assert str(error) == (
        'Step "plan" of run r_7f3 is held by worker w_91 (take 5), not by w_42 (take 4): '
        "another worker owns it. Stop without writing."
    )


def test_a_step_that_nobody_holds_is_said_so() -> None:
    error = StaleHolder(step="plan", run_id="r", holder="", take=0, mine="w_42", my_take=4)
    assert "no longer held" in str(error)
    assert "w_42" in str(error)


def test_errors_are_equal_by_class_and_fields() -> None:
    assert errors.RunNotFound(run_id="a") != errors.RunNotFound(run_id="b")
    assert errors.UsageError("a") != errors.RunError("a")
    assert len({errors.UsageError("a"), errors.UsageError("a")}) == 1


def test_a_join_tells_its_first_failure_if_it_is_known() -> None:
    numbers: dict[str, Any] = {"join_id": "j", "succeeded": 1, "need": 2, "size": 3}
    assert str(errors.JoinFailed(**numbers)) == "Join j: 1 of 3 succeeded, 2 needed."
    known = errors.JoinFailed(**numbers, first=errors.UsageError("it was wrong").to_wire())
    assert str(known).endswith("The first failure: it was wrong")


def test_pools_are_told_with_their_tags() -> None:
    error = errors.NoPoolFor(step="s", needs={"gpu": "t4"}, pools={"a": {"gpu": "a100"}, "b": {}})
    assert """Declared: "a" {'gpu': 'a100'}; "b" without tags.""" in str(error)


def test_a_near_name_is_suggested() -> None:
    assert 'Did you mean "research"?' in str(errors.UnknownAgent(name="reserch", known=["research", "plan"]))
    assert "Did you mean" not in str(errors.UnknownAgent(name="xyz", known=["research"]))
    assert "Known: none" in str(errors.UnknownAgent(name="xyz", known=[]))


def test_a_value_that_json_cannot_hold_is_kept_as_its_repr_and_cut() -> None:
    error = InvalidArguments(step="s", parameter="p", value=object(), reason="no")
    assert "<object object" in str(error)
    long = InvalidArguments(step="s", parameter="p", value="x" * 10_000, reason="no")
    assert len(str(long)) < 400
    assert "10002 characters" in str(long)


def test_none_is_a_value_and_no_value_is_none() -> None:
    assert "given: None" in str(InvalidArguments(step="s", parameter="p", value=None, reason="no"))
    assert "given" not in str(InvalidArguments(step="s", parameter="p", reason="it is missing"))


def test_a_repr_that_fails_does_not_hide_the_error() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    assert "whose repr fails" in str(InvalidArguments(step="s", parameter="p", value=Broken(), reason="no"))


@pytest.mark.parametrize(
    "wire",
    [
        {"code": "from_the_future", "fields": {"a": 1}},
        {"code": "key_reused", "fields": {"key": "k"}},
        {"code": "key_reused", "fields": None},
        {"code": "stale_holder", "fields": {"step": []}},
        {},
    ],
)
def test_an_error_of_another_version_is_still_told(wire: dict[str, Any]) -> None:
    error = from_wire(wire)
    assert type(error) is AgentqError
    assert str(wire) in str(error)


def test_a_field_of_a_newer_version_does_no_harm() -> None:
    error = from_wire({"code": "run_not_found", "fields": {"run_id": "r-1", "new": 3}})
    assert isinstance(error, errors.RunNotFound)
    assert error.run_id == "r-1"


def test_a_time_out_is_pythons_too() -> None:
    with pytest.raises(TimeoutError):
        raise GetTimeout(run_id="r", seconds=1)


def test_a_users_own_error_crosses_where_its_class_is_known() -> None:
    class Refused(errors.UsageError):
        code = "test_refused"
        who: str

        def __init__(self, *, who: str) -> None:
            self._fill(who=who)

        def describe(self) -> str:
            return f"{self.who} refused"

    assert str(from_wire(Refused(who="Ada").to_wire())) == "Ada refused"


def test_arguments_stand_in_args_as_for_any_exception() -> None:
    error = errors.UsageError("wrong")
    assert error.args == ("wrong",)
    assert repr(error) == "UsageError('wrong')"


@pytest.mark.parametrize("reason", ["refused", "refused."])
def test_a_reason_ends_with_one_full_stop(reason: str) -> None:
    error = errors.StoreUnavailable(url="redis://localhost", reason=reason)
    assert 'refused. "agentq doctor"' in str(error)


def test_a_guess_stays_a_question() -> None:
    error = errors.InvalidSetting(name="AGENTQ_NOPE", reason='there is no such setting. Did you mean "AGENTQ_APP"?')
    assert str(error).endswith('Did you mean "AGENTQ_APP"?')
