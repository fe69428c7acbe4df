"""`research`: a question answered over a folder of documents, with quotations and their places.

The manager lists the folder, fans out one step a part, refines the question by what came back, fans out
again, and joins with diversity. With a model configured, the model plans sub-questions and writes the answer
from the quotations; without one the answer is the quotations, and says so. All rules are in `retrieval`: this
file is who does what, where.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from agentq import Retry, Run, agent, step
from agentq.core.errors import InvalidArguments, StepFailed
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
MODEL_RETRY = Retry(attempts=4, on=(model.ModelUnavailable,))


class Choice(BaseModel):
    """What the join came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quotations: list[Quotation]
    added: list[str] = []
    """The terms that refined the question, as the documents say them."""
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
def choose_quotations(folder: str, finalists: list[tuple[float, Candidate]], added: list[str], most: int) -> Choice:
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
    return Choice(quotations=kept, added=choosing.spoken(added, finalists), notes=notes)


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
    except StepFailed as problem:
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
    surveys = await run.starmap(survey_part, [(part, first) for part in parts])
    unread = list(
        {one.file: one for one in (*found.unread, *(each for survey in surveys for each in survey.unread))}.values()
    )
    documents = len({piece.file for piece in found.slices} - {one.file for one in unread})
    searched = refining.total(surveys, parts=len(parts), files=documents)
    notes.extend(note for survey in surveys for note in survey.notes)
    query = refining.refine(first, surveys, parts=len(parts))
    added = [term for term in query.weights if term not in first.weights]
    run.emit("refined", terms=added, passages=searched.passages)
    finalists: list[tuple[float, Candidate]] = []
    if any(survey.hints for survey in surveys):
        results = await run.starmap(search_part, [(part, query) for part in parts])
        finalists = refining.finalists(query, results, searched.passages)
    if not finalists:
        reason = reporting.why_nothing(folder, asked.values(), searched)
        return reporting.finished_report(question, reason, searched=searched, unread=unread, notes=notes)
    choice = await run.call(choose_quotations, folder, finalists, added, MORE if plan.model else FEW)
    notes.extend([*choice.notes, *reporting.few_found(choice.quotations)])
    written = await _write(run, question, plan, choice.quotations, notes)
    lead = reporting.NO_MODEL if plan.model is None else reporting.MODEL_FAILED
    return reporting.finished_report(
        question,
        written.answer if written is not None else reporting.extractive_answer(choice.quotations, lead),
        quotations=choice.quotations,
        searched=searched,
        unread=unread,
        method="model" if written is not None else "quotations",
        refined_with=choice.added,
        sub_questions=plan.sub_questions,
        notes=notes,
    )


async def _write(
    run: Run, question: str, plan: Plan, quotations: Sequence[Quotation], notes: list[str]
) -> Written | None:
    if plan.model is None or not quotations:
        return None
    try:
        written = await run.call(write_answer, question, list(quotations))
    except StepFailed as problem:
        notes.append(f"The model did not write the answer: {problem}")
        return None
    notes.extend(written.notes)
    if written.cited:
        return written
    notes.append("The model's answer cited no quotation that bears it out; it was set aside.")
    return None
