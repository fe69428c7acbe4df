"""Where one command or reply of the Redis protocol ends in a stream of bytes; knows RESP 2 and 3."""

from __future__ import annotations

_WITH_LENGTH = b"$!="
_OF_MANY = b"*~>"
_OF_PAIRS = b"%|"


def end_of(buffer: bytes | bytearray, at: int = 0) -> int | None:
    """Return the place behind the value that begins at ``at``; None while it is not all there."""
    missing = 1
    while missing:
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return None
        kind = buffer[at]
        if kind in _WITH_LENGTH:
            length = int(buffer[at + 1 : line])
            at = line + 2 if length < 0 else line + 4 + length
            if at > len(buffer):
                return None
        else:
            if kind in _OF_MANY:
                missing += max(int(buffer[at + 1 : line]), 0)
            elif kind in _OF_PAIRS:
                # An attribute comes in front of the value that it describes.
                missing += 2 * int(buffer[at + 1 : line]) + (kind == ord("|"))
            at = line + 2
        missing -= 1
    return at


def words_of(command: bytes) -> list[bytes]:
    """Return the words of a whole command, which is an array of bulk strings."""
    line = command.index(b"\r\n")
    words, at = [], line + 2
    for _ in range(int(command[1:line])):
        line = command.index(b"\r\n", at)
        length = int(command[at + 1 : line])
        words.append(command[line + 2 : line + 2 + length])
        at = line + 4 + length
    return words
