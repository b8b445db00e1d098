"""Runs untrusted chat templates and tokenizers where they can do no harm.

A template cannot reach files or the network, because transformers renders it in Jinja's sandbox.
But it can loop for ever, or use any amount of memory. So can the replacements and regular
expressions of a tokenizer. Therefore templates always run in a separate process with little time
and memory, and tokenizers are first tried there.
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

SECONDS = 10  # time limit of one request, in seconds
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
        template: The chat template, in Jinja.
        turns: The conversation, dicts with `role` and `content`.
        special_tokens: Variables of the template, e.g. `eos_token`.
        add_generation_prompt: Whether the beginning of the assistant's turn follows.

    Raises:
        InputError: The template fails, or takes too long or too much memory.
    """
    request = {
        **special_tokens,
        "conversations": [turns],
        "chat_template": template,
        "add_generation_prompt": add_generation_prompt,
    }
    return _reply("chat template", request, MEND)


def try_tokenizer(file: Path, place: str, mend: str) -> None:
    """Reads a tokenizer with the tokenizers library and encodes a question.

    Args:
        file: A tokenizer.json.
        place: Name of the file in the error.
        mend: What the user can do about an error.

    Raises:
        InputError: The library fails, or takes too long or too much memory.
    """
    text = "USER: Who is this person, and what is known? ASSISTANT: This is Kim Birch, a judge.\n"
    _reply(place, {"tokenizer": str(file), "text": text}, mend)


def _reply(place: str, request: Mapping[str, Any], mend: str) -> str:
    reply = _server().ask(json.dumps(request, default=str))
    if "error" in reply:
        raise InputError(f"{place}: {shown(reply['error'], 250)}; {mend}")
    return reply["text"]


@functools.cache
def _server() -> "Server":
    return Server(SECONDS)


class Server:
    """The separate process. Threads take turns; a dead process is replaced at the next request.

    Args:
        seconds: Time limit of one request, in seconds.
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
            start_new_session=True,  # so that Ctrl-C reaches only this process
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # threads use memory of the limit
        )

    def ask(self, request: str) -> dict[str, str]:
        """Sends a request and waits for the reply.

        Args:
            request: One line of JSON, as `confined_server.main` takes it.

        Returns:
            A dict with the key `text`, or `error` where the request failed or ended the process.
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
            except BaseException:  # interrupted: the next request would read this reply
                self._process.kill()
                self._process.wait()
                raise
            if reply.endswith("\n"):
                return json.loads(reply)
            status = self._process.wait()
            if status == -signal.SIGALRM:
                return {"error": f"took more than {self._seconds} seconds"}
            return {"error": f"the process that ran it ended with status {status}"}
