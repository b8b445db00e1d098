"""Chat templates and tokenizers, which are a stranger's programs, where they can do no harm.

A template cannot reach files or the network (transformers renders it in Jinja's sandbox), but it
can loop for ever or ask for any amount of memory, in any of many ways; so can the replacements and
regular expressions of a tokenizer. So the former always run in a process of its own that has little
time and memory, and the latter are tried there first.
"""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmunlearner_jax.errors import InputError, shown

SECONDS = 10  # that one question, or reading a tokenizer, may take
MEND = "use the chat template of the checkpoint this one was made from"


def render(
    template: str,
    turns: Sequence[Mapping[str, Any]],
    special_tokens: Mapping[str, Any],
    *,
    add_generation_prompt: bool,
) -> str:
    """Renders a conversation as `apply_chat_template` of transformers does.

    Args:
        template: In Jinja.
        turns: Dicts of `role` and `content`.
        special_tokens: What the template may call by name, e.g. `eos_token`.
        add_generation_prompt: Whether the assistant's opening follows.

    Raises:
        InputError: The template fails, or takes too long or too much memory.
    """
    request = {
        **special_tokens,
        "conversations": [turns],
        "chat_template": template,
        "add_generation_prompt": add_generation_prompt,
    }
    return _asked("chat template", request, MEND)


def try_tokenizer(file: Path, place: str, mend: str) -> None:
    """Has the tokenizers library read a tokenizer and encode a question.

    Args:
        file: A tokenizer.json.
        place: How to call it in the error.
        mend: What the user can do about it.

    Raises:
        InputError: The library fails, or takes too long or too much memory.
    """
    text = "USER: Who is this person, and what is known? ASSISTANT: This is Kim Birch, a judge.\n"
    _asked(place, {"tokenizer": str(file), "text": text}, mend)


def _asked(place: str, request: Mapping[str, Any], mend: str) -> str:
    reply = _server().ask(json.dumps(request, default=str))
    if "error" in reply:
        raise InputError(f"{place}: {shown(reply['error'], 250)}; {mend}")
    return reply["text"]


@functools.cache
def _server() -> "Server":
    return Server(SECONDS)


class Server:
    """The process; threads take turns. One that died is replaced at the next ask.

    Args:
        seconds: That one request may take.
    """

    def __init__(self, seconds: int):
        self._seconds, self._turn = seconds, threading.Lock()
        self._start()
        atexit.register(lambda: self._process.kill())

    def _start(self) -> None:
        program = Path(__file__).with_name("confined_server.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(program), str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is this process's to heed
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each takes memory of the limit
        )

    def ask(self, request: str) -> dict[str, str]:
        """Returns the `text`, or the `error` where there is none or the process died of it.

        Args:
            request: One line of JSON, as `confined_server.main` takes it.
        """
        with self._turn:
            if self._process.poll() is not None:
                self._start()
            to, back = self._process.stdin, self._process.stdout
            assert to is not None and back is not None
            try:
                to.write(request + "\n")
                to.flush()
                reply = back.readline()
            except BrokenPipeError:
                reply = ""
            except BaseException:  # interrupted: the reply would be taken for the next one
                self._process.kill()
                self._process.wait()
                raise
            if reply.endswith("\n"):
                return json.loads(reply)
            status = self._process.wait()
            if status == -signal.SIGALRM:
                return {"error": f"it took more than {self._seconds} seconds"}
            return {"error": f"the process that tried it ended with status {status}"}
