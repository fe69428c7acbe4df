"""A list that is read while it is used. It owns the order of reading; where the items lie is the reader's matter."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Self, TypeVar, overload

T_co = TypeVar("T_co", covariant=True)

CHUNK: Final = 500
"""Items read at once: some hundred KB of the usual results."""


class LazyList(Sequence[T_co]):
    """Items that are read in chunks when they are asked for; only the chunk that was read last stays in memory.

    A slice is a list. Reading it twice reads the server twice.
    """

    def __init__(self, length: int, read: Callable[[int, int], Sequence[T_co]], *, chunk: int = CHUNK) -> None:
        """`read(start, stop)` returns the items of these places."""
        self._length = length
        self._read = read
        self._size = chunk
        self._at = 0
        self._held: Sequence[T_co] = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._length} items>"

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T_co]:
        for at in range(self._length):
            yield self._item(at)

    @overload
    def __getitem__(self, place: int) -> T_co: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[T_co]: ...

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self._item(at) for at in range(*place.indices(self._length))]
        at = place + self._length if place < 0 else place
        if not 0 <= at < self._length:
            raise IndexError(f"there is no item {place} among {self._length}")
        return self._item(at)

    def mapped(self, function: Callable[[Any], Any]) -> Self:
        """The same list, each item of which passes through `function` when its chunk is read."""
        return type(self)(
            self._length,
            lambda start, stop: [function(item) for item in self._read(start, stop)],
            chunk=self._size,
        )

    def _item(self, at: int) -> T_co:
        if not self._at <= at < self._at + len(self._held):
            self._at = at - at % self._size
            self._held = self._read(self._at, min(self._at + self._size, self._length))
        return self._held[at - self._at]
