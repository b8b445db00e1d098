"""A chat endpoint that may be anybody's: asked within limits, and its secrets never shown."""

import asyncio
import base64
import json
import re
from collections.abc import Set
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2

from mmunlearner_jax.errors import InputError, in_words

MOST_BYTES = 2**20  # of a reply; of 700 tokens it has a few thousand


class Reply(NamedTuple):
    """What an endpoint said.

    Attributes:
        status: of HTTP.
        retry_after: seconds that it asks to wait; 0 where it does not.
        body: at most `MOST_BYTES`, as sent.
    """

    status: int
    retry_after: float
    body: bytes


class Endpoint:
    """The address of `/chat/completions` below an endpoint, and how it is asked."""

    def __init__(self, address: str, key: str, *, timeout: float):
        """Opens no connection yet.

        Args:
            address: up to and without `/chat/completions`; user information goes in place of the
                key, a query behind the path.
            key: sent as the bearer token.
            timeout: of one request from first to last, in seconds.

        Raises:
            InputError: the address is none.
        """
        open_about = "..." if {*"@?#"} & {*address} else address  # behind these may be secrets
        if not address.startswith(("https://", "http://")):
            raise InputError(f"--endpoint={open_about}: begin it with https:// or http://")
        try:
            url = httpx2.URL(address)
            url = url.copy_with(path=f"{url.path.rstrip('/')}/chat/completions", fragment=None)
            bare = url.copy_with(username=None, password=None, query=None)
            url.raw_host.decode("ascii").encode("idna")  # as the resolver will
        except (httpx2.InvalidURL, ValueError):
            raise InputError(f"--endpoint={open_about}: is no address (https://host/v1)") from None
        if not url.host or (url.port or 0) >= 2**16:
            raise InputError(f"--endpoint={open_about}: names no host, or no port below 65,536")
        self._url, self.shown = url, str(bare)
        try:
            self._tls = httpx2.create_ssl_context()  # slow, so once
        except OSError as error:
            raise InputError(f"SSL_CERT_FILE, SSL_CERT_DIR: {in_words(error)}") from None
        self._timeout = timeout
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # so nothing is unpacked, and nothing grows
        }
        user = f"{url.username}:{url.password}"
        sent = base64.b64encode(user.encode()).decode()
        values = (value for _, value in url.params.multi_items())
        self._secrets = _pattern({key, user, url.username, url.password, sent, *values} - {"", ":"})

    def post(self, request: Any) -> Reply:
        """Sends JSON, and reads the reply within the limits of time and size.

        Redirects are not followed.

        Raises:
            ConnectionError: it is out of reach, or breaks off.
            TimeoutError: the whole took longer than `timeout`.
            InputError: the reply is too long, or nothing can be sent from here.
        """
        try:
            return asyncio.run(self._post(json.dumps(request)))
        except (TimeoutError, InputError):
            raise
        except httpx2.TransportError as error:
            raise ConnectionError(type(error).__name__) from None
        except Exception as error:  # a proxy's variable, certificates, a host of odd letters ...
            raise InputError(f"{self.shown}: cannot be asked ({type(error).__name__})") from None

    async def _post(self, request: str) -> Reply:
        # A client's own limits are of single reads: a byte a second would keep to them for ever.
        async with (
            asyncio.timeout(self._timeout),
            httpx2.AsyncClient(timeout=None, verify=self._tls) as client,
            client.stream("POST", self._url, content=request, headers=self._headers) as reply,
        ):
            body = bytearray()
            async for part in reply.aiter_raw():
                body += part
                if len(body) > MOST_BYTES:
                    raise InputError(f"{self.shown}: its reply has more than {MOST_BYTES:,} bytes")
            asked = reply.headers.get("Retry-After", "")
            wait = float(asked) if asked.isascii() and asked.isdigit() else 0.0
            return Reply(reply.status_code, wait, bytes(body))

    def without_secrets(self, text: str) -> str:
        """A text with `***` for the key, user information and values of the query."""
        return self._secrets.sub("***", text)


def _pattern(secrets: Set[str]) -> re.Pattern[str]:
    """Finds secrets in any case, with escapes of JSON, URLs and HTML, and broken over lines."""
    known = {*secrets, *map(quote, secrets)}
    longest_first = sorted(known, key=lambda it: (-len(it), it))
    return re.compile("|".join(map(_spelled, longest_first)), re.IGNORECASE)


def _spelled(secret: str) -> str:
    def spelled(character: str) -> str:
        code = ord(character)
        escapes = rf"\\+u0*{code:x}|\\+x{code:02x}|%{code:02x}|&\#0*{code};|&\#x0*{code:x};"
        return rf"(?:\\*{re.escape(character)}|{escapes})"

    return r"\s*".join(map(spelled, secret))
