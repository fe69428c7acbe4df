"""A thread of a worker that looks again and again whether there is something to do. It must not know what."""

from __future__ import annotations

import logging
import random
import threading
from abc import ABC, abstractmethod

from agentq.core.errors import Unavailable
from agentq.store import Store


class Background(ABC):
    """Looks every `pause_s` seconds on average, ever more seldom while it cannot.

    No worker leads the others: all look at times of their own, so that not all come at once.

    Attributes:
        store: with a client of its own, which ends with the thread.
        pause_s, longest_pause_s: seconds between two looks, on average; and at most, while a look fails.
    """

    pause_s: float = 1.0
    longest_pause_s: float = 30.0

    def __init__(self, store: Store, *, name: str, logger: logging.Logger) -> None:
        self.store = store
        self._name = name
        self._logger = logger
        self._away = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"agentq-{name}", daemon=True)

    @property
    def is_stopping(self) -> bool:
        """Whether the worker ends: what is left is another's, or the next worker's."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what it is about."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self.store.close()

    @abstractmethod
    def look(self) -> object:
        """Do once what is to be done. Unavailable, and any other error, is told, and tried again later."""

    def _run(self) -> None:
        pause = self.pause_s
        while not self._stop.wait(pause * random.uniform(0.5, 1.5)):
            try:
                self.look()
            except Unavailable as error:
                if not self._away:
                    self._logger.warning("%s_waits: %s", self._name, error)
                self._away = True
            except Exception:
                self._logger.exception("%s_failed", self._name)
            else:
                pause = self.pause_s
                if self._away:
                    self._away = False
                    self._logger.info("%s_goes_on", self._name)
                continue
            pause = min(pause * 2, self.longest_pause_s)
