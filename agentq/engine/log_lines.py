"""The log's lines that each step costs two of: told as Celery tells them, made for a fraction of what they cost there.

To make a record, ``logging`` looks through the stack for who speaks, through the fields of ``extra`` for clashes, and
asks for what stays the same in a process. Here a record is a copy of the process's first one. Levels, filters and
handlers are asked as ever; where somebody makes records of his own, he makes these too.
"""

from __future__ import annotations

import logging
import os
import threading
from time import time
from typing import Any, Final

_lines: Final[list[Line]] = []


class Line:
    """A line of level INFO that is said again and again with other values.

    Args:
        logger: who says it.
        text: with places for values by name, as ``logging`` has them.
        said_by: whose file, line and name stand in the record.
    """

    def __init__(self, logger: logging.Logger, text: str, *, said_by: Any) -> None:
        self._logger = logger
        self._text = text
        self._code = said_by.__code__
        self._first: logging.LogRecord | None = None
        _lines.append(self)

    @property
    def is_heard(self) -> bool:
        """Whether anybody wants it; else its values need not be put together."""
        return self._logger.isEnabledFor(logging.INFO)

    def say(self, values: dict[str, Any]) -> None:
        """Tell it with these values, which handlers find as the record's ``data`` too."""
        logger = self._logger
        if logging.getLogRecordFactory() is not logging.LogRecord or type(logger).makeRecord is not _MAKES:
            logger.info(self._text, values, extra={"data": values})
            return
        first = self._first
        if first is None:
            first = self._first = self._made(values)
        record = logging.LogRecord.__new__(logging.LogRecord)
        now, own = time(), record.__dict__
        own.update(first.__dict__)
        own["args"] = own["data"] = values
        own["created"] = now
        own["msecs"] = float(int(now * 1000) % 1000)
        own["relativeCreated"] = first.relativeCreated + (now - first.created) * 1000
        if first.thread is not None:
            own["thread"] = threading.get_ident()
            own["threadName"] = threading.current_thread().name
        logger.handle(record)

    def _made(self, values: dict[str, Any]) -> logging.LogRecord:
        code, extra = self._code, {"data": values}
        return self._logger.makeRecord(
            self._logger.name,
            logging.INFO,
            code.co_filename,
            code.co_firstlineno,
            self._text,
            (values,),
            None,
            func=code.co_name,
            extra=extra,
        )

    def forget(self) -> None:
        """Make the next record anew: this is another process."""
        self._first = None


_MAKES: Final = logging.Logger.makeRecord


def _forget() -> None:
    for line in _lines:
        line.forget()


os.register_at_fork(after_in_child=_forget)
