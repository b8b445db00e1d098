"""Chat templates, which are a stranger's programs, rendered where they can do no harm.

A template cannot reach files or the network (transformers renders it in Jinja's sandbox), but it
can loop for ever or ask for any amount of memory, in any of many ways. So it runs in a process of
its own that has little of both.
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

SECONDS = 10  # that one question may take
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
        template: in Jinja.
        turns: dicts of `role` and `content`.
        special_tokens: what the template may call by name, e.g. `eos_token`.
        add_generation_prompt: whether the assistant's opening follows.

    Raises:
        InputError: the template fails, or takes too long or too much memory.
    """
    request = {
        **special_tokens,
        "conversations": [turns],
        "chat_template": template,
        "add_generation_prompt": add_generation_prompt,
    }
    reply = _server().ask(json.dumps(request, default=str))
    if "error" in reply:
        raise InputError(f"chat template: {shown(reply['error'], 250)}; {MEND}")
    return reply["text"]


@functools.cache
def _server() -> "Server":
    return Server(SECONDS)


class Server:
    """The process that renders; threads take turns. One that died is replaced at the next ask.

    Args:
        seconds: that one question may take.
    """

    def __init__(self, seconds: int):
        self._seconds, self._turn = seconds, threading.Lock()
        self._start()
        atexit.register(lambda: self._process.kill())

    def _start(self) -> None:
        program = Path(__file__).with_name("template_server.py")
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
            request: one line of JSON, arguments of `render_jinja_template` of transformers.
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
            if reply:
                return json.loads(reply)
            status = self._process.wait()
            if status == -signal.SIGALRM:
                return {"error": f"one question took more than {self._seconds} seconds"}
            return {"error": f"what renders it ended with status {status}"}
