"""`research`: a question answered over a folder of documents, with quotations and their places.

The manager lists the folder, fans out one step a part, refines the question by what came back, fans out
again, and joins with diversity. With a model configured, the model plans sub-questions and writes the answer
from the quotations; without one the answer is the quotations, and says so. All rules are in `retrieval`: this
file is who does what, where.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from agentq import Retry, Run, agent, step
from agentq.core.errors import InvalidArguments, StepFailed, StepTimeout
from workers.agents import model
from workers.agents.asking import answer_messages, plan_messages, read_plan
from workers.agents.retrieval import choosing, citing, listing, refining, reporting, scoring, verifying, words
from workers.agents.retrieval.models import (
    Candidate,
    Found,
    Listing,
    Part,
    Query,
    Quotation,
    Report,
    Slice,
    Survey,
    Unread,
)

FEW, MORE = 6, 10
"""Quotations in a report without and with a model, which can weave more of them."""
FAILED = (StepFailed, StepTimeout)
"""A step that did not end well, after all its attempts."""
R = TypeVar("R")
MODEL_RETRY = Retry(attempts=4, on=(model.ModelUnavailable,))


class Choice(BaseModel):
    """What the join came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quotations: list[Quotation]
    notes: list[str] = []


class Written(BaseModel):
    """A model's answer whose citations hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: str
    cited: list[int]
    notes: list[str] = []


class Folder(NamedTuple):
    """What the listings add up to."""

    slices: list[Slice]
    unread: list[Unread]
    other: dict[str, int]


@step(pool="tools", retry=Retry(attempts=4), timeout=timedelta(minutes=5))
def list_documents(folder: str, after: str | None = None) -> Listing:
    """The next chunk of the folder's files."""
    return listing.list_files(folder, after)


@step(pool="tools", retry=Retry(attempts=4), timeout=timedelta(minutes=5))
def survey_part(part: Part, query: Query) -> Survey:
    """Round one over one part: statistics, and hints to refine the question."""
    return scoring.survey_part(part, query)


@step(pool="tools", retry=Retry(attempts=4), timeout=timedelta(minutes=5))
def search_part(part: Part, query: Query) -> Found:
    """Round two over one part: its best passages."""
    return scoring.search_part(part, query)


@step(pool="tools", retry=Retry(attempts=4), timeout=timedelta(minutes=2))
def choose_quotations(folder: str, finalists: list[tuple[float, Candidate]], most: int) -> Choice:
    """The join: a handful of good and different quotations, each checked against its file once more."""
    notes: list[str] = []
    kept: list[Quotation] = []
    for value, candidate in choosing.choose(finalists, most=most):
        quotation = choosing.quotation(value, candidate)
        reason = verifying.check_quotation(quotation, folder)
        if reason is None:
            kept.append(quotation)
        else:
            notes.append(f"A quotation of {quotation.file}:{quotation.line} was left out: {reason}.")
    return Choice(quotations=kept, notes=notes)


@step(pool="model", retry=MODEL_RETRY, timeout=timedelta(minutes=3))
async def plan_questions(question: str) -> list[str]:
    """The model's sub-questions; empty when it has none."""
    return read_plan((await model.chat(plan_messages(question))).text)


@step(pool="model", retry=MODEL_RETRY, timeout=timedelta(minutes=3))
async def write_answer(question: str, quotations: list[Quotation]) -> Written:
    """The model's answer from the quotations, with the citations that do not hold removed."""
    reply = await model.chat(answer_messages(question, quotations))
    checked = citing.check_citations(reply.text, quotations)
    return Written(answer=checked.answer, cited=checked.cited, notes=checked.notes)


@agent(pool="managers", version="1")
async def research(run: Run, question: str, folder: str) -> Report:
    """A report on the question from the documents in the folder, as the workers see it.

    Raises InvalidArguments when there is no such folder. A file that cannot be read is in `unread`, never
    fatal.
    """
    asked = words.question_words(question)
    if not asked.terms:
        return reporting.finished_report(question, reporting.no_question(asked.common))
    found = await _list_folder(run, folder)
    parts = listing.plan_parts(folder, found.slices)
    run.emit("listed", documents=len({piece.file for piece in found.slices}), parts=len(parts))
    if not parts:
        answer = reporting.no_documents(folder, found.other, found.unread)
        return reporting.finished_report(question, answer, unread=found.unread)
    notes: list[str] = []
    planned = await _plan(run, question, notes)
    return await _search(run, question, folder, found, parts, planned, notes)


async def _list_folder(run: Run, folder: str) -> Folder:
    found = Folder([], [], {})
    after: str | None = None
    while True:
        chunk = await run.call(list_documents, folder, after)
        if chunk.problem is not None:
            reason = reporting.folder_problem(chunk, folder)
            raise InvalidArguments(step="research", parameter="folder", value=folder, reason=reason)
        found.slices.extend(chunk.slices)
        found.unread.extend(chunk.unread)
        for kind, number in chunk.other.items():
            found.other[kind] = found.other.get(kind, 0) + number
        if chunk.after is None:
            return found
        after = chunk.after


class Plan(NamedTuple):
    """Who answers, and what a model made of the question."""

    model: str | None
    sub_questions: list[str]


async def _plan(run: Run, question: str, notes: list[str]) -> Plan:
    name = await run.local(model.configured_name)
    if name is None:
        return Plan(None, [])
    try:
        planned = await run.call(plan_questions, question)
    except FAILED as problem:
        notes.append(f"The model did not plan the search: {problem}")
        return Plan(name, [])
    run.emit("planned", sub_questions=planned)
    return Plan(name, planned)


async def _search(
    run: Run, question: str, folder: str, found: Folder, parts: Sequence[Part], plan: Plan, notes: list[str]
) -> Report:
    asked = words.question_words(question).terms
    extra = [term for one in plan.sub_questions for term in words.question_words(one).terms]
    first = refining.first_query(list(asked), extra, parts=len(parts))
    unread = list(found.unread)
    surveys = await _everywhere(run, survey_part, parts, first, unread)
    unread += [one for survey in surveys for one in survey.unread]
    notes += [note for survey in surveys for note in survey.notes]
    query = refining.refine(first, surveys, parts=len(parts))
    added = refining.spoken((term for term in query.weights if term not in first.weights), surveys)
    searched = refining.total(surveys, parts=len(parts), files=_read(found, unread))
    run.emit("refined", terms=added, passages=searched.passages)
    finalists: list[tuple[float, Candidate]] = []
    if any(survey.hints for survey in surveys):
        results = await _everywhere(run, search_part, parts, query, unread)
        finalists = refining.finalists(query, results, searched.passages)
    if not finalists:
        reason = reporting.why_nothing(folder, asked.values(), searched)
        return reporting.finished_report(question, reason, searched=searched, unread=unread, notes=notes)
    choice = await run.call(choose_quotations, folder, finalists, MORE if plan.model else FEW)
    notes += [*choice.notes, *reporting.few_found(choice.quotations)]
    written = await _write(run, question, plan, choice.quotations, notes)
    lead = reporting.NO_MODEL if plan.model is None else reporting.MODEL_FAILED
    return reporting.finished_report(
        question,
        written.answer if written is not None else reporting.extractive_answer(choice.quotations, lead),
        quotations=choice.quotations,
        searched=searched,
        unread=unread,
        method="model" if written is not None else "quotations",
        refined_with=added,
        sub_questions=plan.sub_questions,
        notes=notes,
    )


async def _everywhere(
    run: Run, search: Callable[..., R], parts: Sequence[Part], query: Query, unread: list[Unread]
) -> list[R]:
    """The step's result for every part; a part whose step failed for good is unread, unless all of them are."""
    results = await run.starmap(search, [(part, query) for part in parts], return_exceptions=True)
    kept: list[R] = []
    for part, result in zip(parts, results, strict=True):
        if isinstance(result, FAILED):
            reason = f"the step that read it failed: {result}"
            unread.extend(Unread(file=piece.file, reason=reason) for piece in part.slices)
        elif isinstance(result, BaseException):
            raise result
        else:
            kept.append(result)
    if not kept:
        raise next(result for result in results if isinstance(result, BaseException))
    return kept


def _read(found: Folder, unread: Sequence[Unread]) -> int:
    return len({piece.file for piece in found.slices} - {one.file for one in unread})


async def _write(
    run: Run, question: str, plan: Plan, quotations: Sequence[Quotation], notes: list[str]
) -> Written | None:
    if plan.model is None or not quotations:
        return None
    try:
        written = await run.call(write_answer, question, list(quotations))
    except FAILED as problem:
        notes.append(f"The model did not write the answer: {problem}")
        return None
    notes.extend(written.notes)
    if written.cited:
        return written
    notes.append("The model's answer cited no quotation that bears it out; it was set aside.")
    return None
