"""A chat model behind an OpenAI-compatible endpoint, asked again while it is busy."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmunlearner_jax.command_line import Arguments
from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.files import parse_json


class Chat:
    """A chat model behind an OpenAI-compatible endpoint."""

    def __init__(
        self,
        endpoint: str,
        model: str,
        key: str,
        *,
        timeout: float = 60.0,
        attempts: int = 6,
        pause: float = 1.0,
    ):
        """Prepares the requests; opens no connection.

        Args:
            endpoint: Address up to and without `/chat/completions`.
            model: Name of the model at the endpoint.
            key: Bearer token, never shown or stored.
            timeout: Time limit of one attempt, in seconds.
            attempts: Most attempts while the endpoint is busy or out of reach.
            pause: Pause before the second attempt, in seconds; it doubles before each further one.

        Raises:
            InputError: The endpoint is no address, or the extra `judge` is not installed.
        """
        try:
            from mmunlearner_jax.evaluation.endpoint import Endpoint
        except ModuleNotFoundError as error:
            raise InputError(
                f"{error.name}: is not installed, but chat endpoints need it; run"
                " pip install 'mmunlearner_jax[judge]'"
            ) from error
        self.model = model
        self._endpoint = Endpoint(endpoint, key, timeout=timeout)
        self._attempts, self._pause = attempts, pause

    def reply(self, messages: Sequence[dict[str, str]], *, most_tokens: int) -> str:
        """Returns the model's reply, at temperature 0.

        Args:
            messages: The conversation: `role` and `content` of each turn.
            most_tokens: Most tokens of the reply.

        Raises:
            InputError: The endpoint refuses, stays busy or out of reach, or is no chat endpoint.
        """
        request: dict[str, Any] = {"model": self.model, "messages": [*messages]}
        request |= {"temperature": 0, "max_tokens": most_tokens}
        why, wait = "", 0.0
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(max(wait, self._pause * 2 ** (attempt - 1)))
            try:
                reply = self._endpoint.post(request)
            except (ConnectionError, TimeoutError) as error:
                why, wait = str(error) or type(error).__name__, 0.0
                continue
            if reply.status == 200:
                return self._content(reply.body)
            words = self.without_secrets(reply.body.decode(errors="replace"))
            why = f"status {reply.status} {shown(' '.join(words.split()), 200)}".strip()
            if reply.status != 429 and reply.status < 500:
                break
            wait = min(60.0, reply.retry_after)
        self._refuse(why)

    def without_secrets(self, reply: str) -> str:
        """Returns a reply that may be shown and stored."""
        return self._endpoint.without_secrets(reply)

    def _content(self, body: bytes) -> str:
        try:
            content = parse_json(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            content = 0
        if content is None or isinstance(content, str):
            return content or ""
        self._refuse("the reply has no choices[0].message.content")

    def _refuse(self, why: str) -> NoReturn:
        raise InputError(
            f"{self._endpoint.shown}: {why}; check --endpoint, --model and OPENAI_API_KEY, then"
            " repeat the command: what was answered so far is kept"
        ) from None


def chat_arguments(doc: str | None) -> Arguments:
    """Returns a parser with the flags of a program that asks a chat model about a run.

    Args:
        doc: Docstring of the program, whose first line describes it.
    """
    parser = Arguments(description=(doc or "").partition("\n")[0])
    parser.add_argument("--workdir", required=True, type=Path, help="folder of an evaluated run")
    parser.add_argument("--endpoint", required=True, help="address, e.g. https://host/v1")
    parser.add_argument("--model", required=True, help="model's name at the endpoint")
    return parser


def read_key() -> str:
    """Returns the key of the endpoint, which the environment has.

    Raises:
        InputError: OPENAI_API_KEY is unset or no plain text.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise InputError(
            "OPENAI_API_KEY: is unset or no plain text; export the endpoint's key (any word if it"
            " needs none)"
        )
    return key
