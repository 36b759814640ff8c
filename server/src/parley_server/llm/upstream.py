"""The HTTP side of a model call, on the `openai` package's client but without its objects.

The SDK keeps authentication, headers, connections and TLS. Its `create()` is never used: it walks every parameter of
the history, and builds an object for every chunk, which costs many times what the rest of a call does.

Importing this module imports `openai`, which takes most of a second.
"""

import ssl
from collections.abc import AsyncGenerator
from contextlib import suppress

import aiohttp
import httpx2
import openai
from pydantic import SecretStr

from parley_server.llm.model_errors import (
    UnverifiedServerError,
    incomplete,
    invalid,
    not_connected_in_time,
    refused,
    timed_out,
    unavailable,
    upstream_request_id,
)
from parley_server.llm.model_service import ModelError
from parley_server.llm.model_settings import ModelServerSettings

MAX_ERROR_BODY_BYTES = 64 * 1024

_CONNECTION_ERRORS = (openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError, OSError)

_HEADERS: dict[str, str | openai.Omit] = {
    "Content-Type": "application/json",
    # A compressing proxy would hold events back until its block is full.
    "Accept-Encoding": "identity",
    # The SDK's switch for handing over the response unread.
    "X-Stainless-Raw-Response": "stream",
}


class UpstreamAnswer:
    """A successful response whose body is still coming."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._reads: AsyncGenerator[bytes] = response.aiter_bytes()
        self.upstream_request_id = upstream_request_id(response.headers)

    async def read(self) -> bytes:
        """Return what the connection has brought, at least one byte; nothing at the end.

        Raises ModelError MODEL_STREAM_INCOMPLETE when the connection breaks.
        """
        try:
            return await anext(self._reads, b"")
        except _CONNECTION_ERRORS as error:
            raise _error_of(error, incomplete()) from error

    async def aclose(self) -> None:
        """Drop the connection, or keep it for the next call when the body has been read to its end."""
        await self._reads.aclose()
        await self._response.aclose()


class _Client(openai.AsyncOpenAI):
    """Without what the SDK reads from the environment: OPENAI_CUSTOM_HEADERS, an organization, a project.

    That is meant for one server, and may hold a key of it that would take the place of the settings'.
    """

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        """What every request says, besides its own headers."""
        return {"Accept": "application/json", "User-Agent": self.user_agent, **self.platform_headers()}


class Upstream:
    """The pooled connections to one model server. Raises UnverifiedServerError without the CAs to know it by."""

    def __init__(self, settings: ModelServerSettings) -> None:
        timeout = httpx2.Timeout(None, connect=settings.connect_timeout_s, pool=settings.connect_timeout_s)
        key = settings.api_key.get_secret_value()
        self._headers = _HEADERS if key else {**_HEADERS, "Authorization": openai.Omit()}
        self._client = _Client(
            base_url=settings.base_url,
            api_key=key or "none",  # the SDK refuses an empty one
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAioHttpClient(
                verify=_ssl_context(),
                timeout=timeout,
                # A redirect would send the conversation to a host nobody configured.
                follow_redirects=False,
                event_hooks={"response": [_refuse_failures]},
            ),
        )

    async def post(self, body: bytes, api_key: SecretStr | None = None) -> UpstreamAnswer:
        """Send a chat-completions request, with a key of its own if there is one, and return when the server says 200.

        Raises ModelError when it says anything else, or nothing.
        """
        headers = self._headers
        if api_key is not None:
            # The SDK sends what a call says instead of the client's own.
            headers = {**headers, "Authorization": f"Bearer {api_key.get_secret_value()}"}
        try:
            response = await self._client.post(
                "/chat/completions", cast_to=httpx2.Response, content=body, options={"headers": headers}
            )
        except _CONNECTION_ERRORS as error:
            raise _error_of(error, unavailable()) from error
        return UpstreamAnswer(response)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.close()


async def _refuse_failures(response: httpx2.Response) -> None:
    """Raise for every status but success before the SDK does, which would read the body whatever its size."""
    if not response.is_success:
        raise refused(response.status_code, response.headers, await _head(response))


async def _head(response: httpx2.Response) -> bytes:
    body = b""
    # A body that breaks off takes nothing from what the status says.
    with suppress(*_CONNECTION_ERRORS):
        async for read in response.aiter_bytes():
            body += read
            if len(body) >= MAX_ERROR_BODY_BYTES:
                break
    return body


def _ssl_context() -> ssl.SSLContext:
    try:
        return httpx2.create_ssl_context()
    except (FileNotFoundError, PermissionError, ssl.SSLError) as error:
        raise UnverifiedServerError(
            "the CA certificates cannot be read: correct or unset SSL_CERT_FILE and SSL_CERT_DIR"
        ) from error


def _error_of(error: Exception, otherwise: ModelError) -> ModelError:
    """Tell what happened by the causes: the SDK's own classes call a hang-up a time-out of connecting."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
            return UnverifiedServerError(_certificate_hint(cause))
        if isinstance(cause, aiohttp.ClientConnectorSSLError):
            return UnverifiedServerError("there was no TLS handshake: is the server's port one for https?")
        if isinstance(cause, aiohttp.ConnectionTimeoutError):
            return not_connected_in_time()
        if isinstance(cause, TimeoutError):
            return timed_out()
        if isinstance(cause, aiohttp.ClientResponseError):
            return invalid("it is not HTTP")
        cause = cause.__cause__
    return otherwise


def _certificate_hint(error: BaseException) -> str:
    """Say what an operator can do; OpenSSL's own words say what is wrong with the certificate."""
    verification = getattr(error, "certificate_error", error)
    problem = getattr(verification, "verify_message", "") or "it does not fit the server"
    return (
        f"the server's certificate is refused: {problem}; if its CA is to be trusted, install the package "
        "ca-certificates, add the CA to the system's, or name a file of CAs in SSL_CERT_FILE"
    )
