"""The separate process, with limits, in which the libraries read untrusted files.

`confined.py` starts it. It imports nothing from this package, whose imports take seconds.
"""

import json
import resource
import signal
import sys

BYTES, CHARACTERS = 2**30, 2**24


def main(seconds: int) -> None:
    """Reads requests from stdin and writes replies to stdout, one JSON object a line.

    A request holds the arguments of `render_jinja_template` of transformers; or `tokenizer`, the
    path of a file, and `text`, which is encoded. A reply holds a `text` or an `error`.

    Args:
        seconds: Time limit of one request, in seconds; then SIGALRM ends the process.
    """
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]  # so transformers skips torch
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
                raise ValueError(f"turns one question into {len(text):,} characters")
            reply = {"text": text}
        except BaseException as error:  # a panic of the tokenizers library is not an Exception
            reply = {"error": f"{type(error).__name__}: {str(error)[:1000]}".removesuffix(": ")}
        print(json.dumps(reply), flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
