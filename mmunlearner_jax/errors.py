"""The one error that a user is meant to read."""


class InputError(ValueError):
    """A mistake in what was given: its message is one line that names file, field and mend.

    `main` prints it without a traceback and exits non-zero.
    """
