"""The program that renders chat templates: a process of its own, with limits on time and memory.

`templates.py` starts it. It imports nothing of the package, whose imports take seconds.
"""

import json
import resource
import signal
import sys

BYTES, CHARACTERS = 2**30, 2**24


def main(seconds: int) -> None:
    """Answers each line of stdin, a request, with one of stdout: a `text`, or an `error`.

    Args:
        seconds: that an answer may take; then the alarm's signal ends the process, whatever it is
            busy with.
    """
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]  # it is not needed
    from transformers.utils.chat_template_utils import render_jinja_template

    for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE):
        most = resource.getrlimit(kind)[1]
        limit = BYTES if kind == resource.RLIMIT_AS else 0
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(kind, (limit, limit))
    for line in sys.stdin:
        signal.alarm(seconds)
        try:
            (text,), _ = render_jinja_template(**json.loads(line))
            if len(text) > CHARACTERS:
                raise ValueError(f"it makes {len(text):,} characters of one question")
            reply = {"text": text}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {str(error)[:1000]}".removesuffix(": ")}
        print(json.dumps(reply), flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
