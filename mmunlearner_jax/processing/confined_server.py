"""Runs what a stranger's files make the libraries do: a process of its own, with limits.

`confined.py` starts it. It imports nothing of the package, whose imports take seconds.
"""

import json
import resource
import signal
import sys

BYTES, CHARACTERS = 2**30, 2**24


def main(seconds: int) -> None:
    """Answers each line of stdin, a request, with one of stdout: a `text`, or an `error`.

    A request has the arguments of `render_jinja_template` of transformers, or a `tokenizer`, a
    file, and a `text` to encode.

    Args:
        seconds: That an answer may take; then the alarm's signal ends the process, whatever it is
            busy with.
    """
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]  # it is not needed
    from tokenizers import Tokenizer
    from transformers.utils.chat_template_utils import render_jinja_template

    for kind, wanted in ((resource.RLIMIT_AS, BYTES), (resource.RLIMIT_CORE, 0)):
        most = resource.getrlimit(kind)[1]
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (limit, limit))
    for line in sys.stdin:
        signal.alarm(seconds)
        try:
            request = json.loads(line)
            if "chat_template" in request:
                (text,), _ = render_jinja_template(**request)
            else:
                text = str(Tokenizer.from_file(request["tokenizer"]).encode(request["text"]).ids)
            if len(text) > CHARACTERS:
                raise ValueError(f"it makes {len(text):,} characters of one question")
            reply = {"text": text}
        except BaseException as error:  # a panic of the tokenizers library is no Exception
            reply = {"error": f"{type(error).__name__}: {str(error)[:1000]}".removesuffix(": ")}
        print(json.dumps(reply), flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
