"""The words of a report: the answer made of quotations, and clear ones where there is no answer.

Owns what people read. Adds nothing to what the documents say.
"""

import re
from collections.abc import Iterable, Sequence

from workers.agents.retrieval.models import UNREAD_LIMIT, Listing, Quotation, Report, Searched, Unread

NO_MODEL = "No model is configured: these are quotations from the folder, not a written answer."
MODEL_FAILED = "The model gave no answer that its quotations bear out: these are the quotations."
_PARAGRAPH = 3
"""Sentences in one paragraph."""
_NAMED = 5
"""Unread files named in the answer; the report holds the others."""

_STOPS = tuple(".!?…:;")
_CLOSING = "\"'”\u2019)*`_]"
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")
_ROLE = re.compile(r":[\w:-]+:`~?@?([^`<]*?)(?:\s*<[^`]*>)?`")
_STRONG = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")


def plain(text: str) -> str:
    """A quotation's text without the marks of Markdown and reStructuredText, for reading; its words stay."""
    text = _ROLE.sub(r"`\1`", _LINK.sub(r"\1", text))
    return _STRONG.sub(r"\2", text).replace("``", "`")


def extractive_answer(quotations: Sequence[Quotation], lead: str = NO_MODEL) -> str:
    """Short paragraphs of the quotations, each with its [n]; those of one file together, in its order."""
    numbered = list(enumerate(quotations, 1))
    files = list(dict.fromkeys(quotation.file for quotation in quotations))
    ordered = sorted(numbered, key=lambda item: (files.index(item[1].file), item[1].page or 0, item[1].line, item[0]))
    sentences = [f"{_finished(plain(quotation.text))} [{number}]" for number, quotation in ordered]
    paragraphs = [" ".join(sentences[at : at + _PARAGRAPH]) for at in range(0, len(sentences), _PARAGRAPH)]
    return "\n\n".join([lead, *paragraphs])


def _finished(text: str) -> str:
    return text if text.rstrip(_CLOSING)[-1:] in _STOPS else f"{text}."


def with_unread(answer: str, unread: Sequence[Unread]) -> str:
    """The answer, and below it which files could not be read, and why."""
    if not unread:
        return answer
    named = "; ".join(f"{one.file}: {one.reason}" for one in unread[:_NAMED])
    more = f"; and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
    return f"{answer}\n\nNot read ({len(unread)}): {named}{more}."


def finished_report(
    question: str,
    answer: str,
    *,
    quotations: Sequence[Quotation] = (),
    searched: Searched | None = None,
    unread: Sequence[Unread] = (),
    method: str = "none",
    refined_with: Sequence[str] = (),
    sub_questions: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Report:
    """The report, with what could not be read below the answer, and long lists cut and the cut said."""
    notes = list(dict.fromkeys(notes))
    unread = list({one.file: one for one in unread}.values())
    if len(unread) > UNREAD_LIMIT:
        notes.append(f"{len(unread) - UNREAD_LIMIT} more files could not be read; the first {UNREAD_LIMIT} are listed.")
    return Report.model_validate(
        {
            "question": question,
            "answer": with_unread(answer, unread),
            "quotations": list(quotations),
            "searched": searched or Searched(),
            "unread": list(unread)[:UNREAD_LIMIT],
            "method": method,
            "refined_with": list(refined_with),
            "sub_questions": list(sub_questions),
            "notes": notes,
        }
    )


def folder_problem(listing: Listing, folder: str) -> str:
    """Why there is nothing to list, for whoever named the folder."""
    reasons = {
        "missing": f"there is no such folder: the worker looked for {listing.place}",
        "not_a_folder": f"it is a file, not a folder: {listing.place}",
        "unreadable": f"the worker may not list it: {listing.place}",
    }
    return reasons[listing.problem or "missing"]


def no_question(common: Sequence[str]) -> str:
    """For a question without a word to look for."""
    if not common:
        return "The question is empty: ask something."
    shown = ", ".join(repr(word) for word in common[:8])
    return f"The question holds only words that stand in every text ({shown}): name what you look for."


def no_documents(folder: str, other: dict[str, int], unread: Sequence[Unread]) -> str:
    """For a folder in which there is nothing to read."""
    if not other and not unread:
        return f"The folder {folder!r} is empty: there is nothing to read."
    kinds = ", ".join(
        f"{number} {kind}" for kind, number in sorted(other.items(), key=lambda item: (-item[1], item[0]))[:6]
    )
    held = f" It holds files of other kinds ({kinds})." if other else ""
    return f"The folder {folder!r} has no Markdown, text, reStructuredText, HTML or PDF document.{held}"


def why_nothing(folder: str, words: Iterable[str], searched: Searched) -> str:
    """For a question that no passage answers."""
    if not searched.files:
        return f"None of the documents in the folder {folder!r} could be read."
    if not searched.passages:
        return f"The folder {folder!r} has {_counted(searched.files, 'document')}, but there is no text in it."
    shown = ", ".join(repr(word) for word in list(words)[:8])
    return f"Nothing was found: no passage of {_counted(searched.files, 'document')} speaks of {shown}."


def few_found(quotations: Sequence[Quotation]) -> list[str]:
    """A note where there are fewer quotations than a reader would expect."""
    if len(quotations) >= 3:
        return []
    return [f"The folder supports only {_counted(len(quotations), 'quotation')}."]


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
