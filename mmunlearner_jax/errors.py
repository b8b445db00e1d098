"""Errors that a user is meant to read, and the display of foreign text in them."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from jax.errors import JaxRuntimeError

LONGEST = 600  # characters of a message


class InputError(ValueError):
    """A mistake in the input; the message is one line that names the file, the field and a remedy.

    `main` prints it without a traceback and exits with status 1. Every message becomes one
    printable line of at most `LONGEST` characters. A longer one loses its middle, because it begins
    with the file and ends with the remedy.
    """

    def __init__(self, message: str):
        super().__init__(shown(message, LONGEST))


def out_of_memory(error: BaseException) -> bool:
    """Returns whether a device had no room for a program or an array."""
    return isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


class Diverged(InputError):
    """The model's outputs are no longer finite: it is damaged, or training diverged."""


def shown(text: Any, most: int = 120) -> str:
    """Returns foreign text as part of one printable line.

    Characters that a terminal would not print as they are (control sequences, line breaks, marks
    that change the writing direction, halves of surrogate pairs) become escapes.

    Args:
        text: Text of an untrusted file or server; other values are turned into a string.
        most: Largest number of characters; a longer text loses its middle.
    """
    whole = str(text)
    if len(whole) > most:  # escapes lengthen the text, so it is cut before and after
        whole = _shortened(whole, most)
    escaped = "".join(c if c.isprintable() else _escape(c) for c in whole)
    return escaped if len(escaped) <= most else _shortened(escaped, most)


def listed(things: Iterable[Any], most: int = 3) -> str:
    """Returns the first `most` things, each `shown`, and the number of the others."""
    rest = iter(things)
    first = [shown(thing) for thing in itertools.islice(rest, most)]
    more = sum(1 for _ in rest)
    return ", ".join(first) + (f" and {more:,} more" if more else "")


def in_words(error: BaseException) -> str:
    """Returns the type and text of a library's exception as part of one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": "), 200)


@contextlib.contextmanager
def refusing(place: Any, mend: str) -> Iterator[None]:
    """Turns any exception of a library about an untrusted file into an `InputError`.

    Args:
        place: The file, and the field if there is one.
        mend: What the user can do about it.

    Raises:
        InputError: With `place`, the text of the exception and `mend`. An `InputError` from inside
            the context is raised unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        # A panic of a Rust library (tokenizers) is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{shown(place, 300)}: {in_words(error)}; {mend}") from error


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _shortened(text: str, most: int) -> str:
    mark = f" ... ({len(text):,} characters) ... "
    room = max(most - len(mark), 0)
    return text[: room - room // 3] + mark[:most] + (text[-(room // 3) :] if room // 3 else "")
