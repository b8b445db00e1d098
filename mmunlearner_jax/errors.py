"""The one error that a user is meant to read, and how foreign text is shown in it."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

LONGEST = 600  # characters of a message


class InputError(ValueError):
    """A mistake in what was given: its message is one line that names file, field and mend.

    `main` prints it without a traceback and exits with status 1. Whatever is in the message, it
    stays one printable line of at most `LONGEST` characters; a longer one loses its middle, since
    it begins with the file and ends with the mend.
    """

    def __init__(self, message: str):
        super().__init__(shown(message, LONGEST))


class Diverged(InputError):
    """What a model computes is not finite any more: it is damaged, or training diverged."""


def shown(text: Any, most: int = 120) -> str:
    """Foreign text as part of one printable line.

    Characters that a terminal would not print as they are (control sequences, line breaks, marks
    that turn the writing direction, halves of surrogate pairs) are shown as escapes.

    Args:
        text: What a stranger's file or server says; anything else is turned into a string.
        most: Characters at most; from a longer text the middle is left out.
    """
    whole = str(text)
    if len(whole) > most:  # escapes make it longer, never shorter: cut before and after
        whole = _shortened(whole, most)
    escaped = "".join(c if c.isprintable() else _escape(c) for c in whole)
    return escaped if len(escaped) <= most else _shortened(escaped, most)


def listed(things: Iterable[Any], most: int = 3) -> str:
    """The first things of a list, each `shown`, and how many more there are."""
    rest = iter(things)
    first = [shown(thing) for thing in itertools.islice(rest, most)]
    more = sum(1 for _ in rest)
    return ", ".join(first) + (f" and {more:,} more" if more else "")


def in_words(error: BaseException) -> str:
    """What an exception of a library says, as part of one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(f"{type(error).__name__}: {' '.join(said.split())}".removesuffix(": "), 200)


@contextlib.contextmanager
def refusing(place: Any, mend: str) -> Iterator[None]:
    """Turns whatever a library raises about a stranger's file into an `InputError`.

    Args:
        place: The file, and the field where there is one.
        mend: What the user can do about it.

    Raises:
        InputError: `place`, what the library said, `mend`. One that is raised inside stays as it
            is.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        # A panic of the Rust libraries (tokenizers) is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{shown(place, 300)}: {in_words(error)}; {mend}") from error


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _shortened(text: str, most: int) -> str:
    mark = f" ... ({len(text):,} characters) ... "
    room = max(most - len(mark), 0)
    return text[: room - room // 3] + mark[:most] + (text[-(room // 3) :] if room // 3 else "")
