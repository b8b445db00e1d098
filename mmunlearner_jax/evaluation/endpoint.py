"""Requests to an untrusted chat endpoint, with limits of size and time; secrets are never shown."""

import asyncio
import base64
import json
import re
from collections.abc import Set
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2

from mmunlearner_jax.errors import InputError, in_words

MOST_BYTES = 2**20  # of a reply; 700 tokens have a few thousand


class Reply(NamedTuple):
    """A reply of an endpoint.

    Attributes:
        status: HTTP status.
        retry_after: Value of the header Retry-After in seconds; 0 without it.
        body: Body of at most `MOST_BYTES` bytes.
    """

    status: int
    retry_after: float
    body: bytes


class Endpoint:
    """A client of `/chat/completions` at an endpoint."""

    def __init__(self, address: str, key: str, *, timeout: float):
        """Prepares the requests; opens no connection.

        Args:
            address: Address up to and without `/chat/completions`. User information in it replaces
                the key; a query is moved to the end.
            key: Bearer token.
            timeout: Time limit of one whole request, in seconds.

        Raises:
            InputError: The address is malformed.
        """
        open_about = "..." if {*"@?#"} & {*address} else address  # the rest may hold secrets
        if not address.startswith(("https://", "http://")):
            raise InputError(f"--endpoint={open_about}: begin it with https:// or http://")
        try:
            url = httpx2.URL(address)
            url = url.copy_with(path=f"{url.path.rstrip('/')}/chat/completions", fragment=None)
            bare = url.copy_with(username=None, password=None, query=None)
            url.raw_host.decode("ascii").encode("idna")  # as the resolver does
        except (httpx2.InvalidURL, ValueError):
            raise InputError(
                f"--endpoint={open_about}: is no address; write it like https://host/v1"
            ) from None
        if not url.host or (url.port or 0) >= 2**16:
            raise InputError(
                f"--endpoint={open_about}: has no host, or a port above 65,535; correct it"
            )
        self._url, self.shown = url, str(bare)
        try:
            self._tls = httpx2.create_ssl_context()  # slow, so once
        except OSError as error:
            raise InputError(f"SSL_CERT_FILE, SSL_CERT_DIR: {in_words(error)}") from None
        self._timeout = timeout
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # no compression, so no reply can expand
        }
        user = f"{url.username}:{url.password}"
        sent = base64.b64encode(user.encode()).decode()
        values = (value for _, value in url.params.multi_items())
        self._secrets = _pattern({key, user, url.username, url.password, sent, *values} - {"", ":"})

    def post(self, request: Any) -> Reply:
        """Sends JSON and reads the reply, within the limits of time and size.

        Redirects are not followed.

        Raises:
            ConnectionError: The endpoint is out of reach, or the connection breaks.
            TimeoutError: The request took longer than `timeout`.
            InputError: The reply is too long, or this machine cannot send the request.
        """
        try:
            return asyncio.run(self._post(json.dumps(request)))
        except (TimeoutError, InputError):
            raise
        except httpx2.TransportError as error:
            raise ConnectionError(type(error).__name__) from None
        except Exception as error:  # a malformed proxy, certificate, host name ...
            raise InputError(
                f"{self.shown}: the request cannot be sent ({type(error).__name__}); check proxy"
                " and certificates"
            ) from None

    async def _post(self, request: str) -> Reply:
        # The client's own limits apply to single reads; a byte per second never exceeds them.
        async with (
            asyncio.timeout(self._timeout),
            httpx2.AsyncClient(timeout=None, verify=self._tls) as client,
            client.stream("POST", self._url, content=request, headers=self._headers) as reply,
        ):
            body = bytearray()
            async for part in reply.aiter_raw():
                body += part
                if len(body) > MOST_BYTES:
                    raise InputError(
                        f"{self.shown}: the reply has more than {MOST_BYTES:,} bytes;"
                        " check --endpoint"
                    )
            seconds = reply.headers.get("Retry-After", "")
            wait = float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0
            return Reply(reply.status_code, wait, bytes(body))

    def without_secrets(self, text: str) -> str:
        """Returns a text with `***` for the key, the user information and the query's values."""
        return self._secrets.sub("***", text)


def _pattern(secrets: Set[str]) -> re.Pattern[str]:
    """Returns a pattern of secrets: any case, escaped (JSON, URL, HTML), and across lines."""
    known = {*secrets, *map(quote, secrets)}
    longest_first = sorted(known, key=lambda it: (-len(it), it))
    return re.compile("|".join(map(_spelled, longest_first)), re.IGNORECASE)


def _spelled(secret: str) -> str:
    def spelled(character: str) -> str:
        code = ord(character)
        escapes = rf"\\+u0*{code:x}|\\+x{code:02x}|%{code:02x}|&\#0*{code};|&\#x0*{code:x};"
        return rf"(?:\\*{re.escape(character)}|{escapes})"

    return r"\s*".join(map(spelled, secret))
