"""The HTTP side of a model call: the `openai` package says what a request says of itself, aiohttp carries it.

The SDK's own `post` costs a fifth of all that a turn costs the server, and its `create()` many times that: it walks
every parameter of the history, and builds an object for every chunk. Its client over aiohttp keeps cookies besides, so
that what a server gave with one user's answer would go with the next user's question.

Importing this module imports `openai`, which takes most of a second.
"""

import io
import ssl
from contextlib import suppress
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

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
MAX_CONNECTIONS = 1000

_PORTS = {"http": 80, "https": 443}
_KEEP_ALIVE_S = 5.0
_MAX_READ_BYTES = 64 * 1024
# As much as h11 takes; aiohttp's own limit is an eighth of it, which some gateways' headers exceed.
_MAX_HEADER_BYTES = 64 * 1024
_MAX_BYTES_AT_ONCE = 256 * 1024

_CONNECTION_ERRORS = (aiohttp.ClientError, OSError)


class UpstreamAnswer:
    """A successful response whose body is still coming."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.upstream_request_id = upstream_request_id(response.headers)

    async def read(self) -> bytes:
        """Return what the connection has brought, at least one byte; nothing at the end.

        Raises ModelError MODEL_STREAM_INCOMPLETE when the connection breaks.
        """
        try:
            return await self._response.content.read(_MAX_READ_BYTES)
        except _CONNECTION_ERRORS as error:
            raise _error_of(error, incomplete()) from error

    async def aclose(self) -> None:
        """Drop the connection, or keep it for the next call when the body has been read to its end."""
        self._response.release()
        await self._response.wait_for_close()


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
        address = urlsplit(settings.base_url.rstrip("/"))
        without_user = address._replace(netloc=address.netloc.rpartition("@")[2])
        self._url = f"{without_user.geturl()}/chat/completions"
        self._proxy = _proxy_for(settings.base_url)
        self._ssl_context = _ssl_context()
        self._headers = _headers(settings, self._ssl_context) | _user_of(address)
        connect_s = settings.connect_timeout_s
        # Everything but connecting is waited for by whoever asks.
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s)
        self._opened: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, api_key: SecretStr | None = None) -> UpstreamAnswer:
        """Send a chat-completions request, with a key of its own if there is one, and return when the server says 200.

        Raises ModelError when it says anything else, or nothing.
        """
        headers = self._headers
        if api_key is not None:
            headers = {**headers, "Authorization": f"Bearer {api_key.get_secret_value()}"}
        try:
            # A redirect would send the conversation to a host nobody configured.
            response = await self._session().post(
                self._url, data=_in_pieces(body), headers=headers, timeout=self._timeout, allow_redirects=False
            )
        except _CONNECTION_ERRORS as error:
            raise _error_of(error, unavailable()) from error
        if not 200 <= response.status < 300:
            raise await _refusal(response)
        return UpstreamAnswer(response)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._opened is not None:
            await self._opened.close()

    def _session(self) -> aiohttp.ClientSession:
        # Made by the first call, for it belongs to the loop that this runs in.
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_S, ssl=self._ssl_context
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=_MAX_HEADER_BYTES,
                max_field_size=_MAX_HEADER_BYTES,
                # `trust_env` would find it too, and look for a .netrc before every request.
                proxy=self._proxy,
            )
        return self._opened


def _headers(settings: ModelServerSettings, ssl_context: ssl.SSLContext) -> dict[str, str]:
    """Return what goes with every request, a key only where there is one."""
    key = settings.api_key.get_secret_value()
    # The SDK refuses an empty key, and would read the CAs once more for a client of its own.
    # It sends nothing: which proxies there are, and whether it could speak to them, is no matter.
    http_client = httpx2.AsyncClient(verify=ssl_context, trust_env=False)
    client = _Client(base_url=settings.base_url, api_key=key or "none", http_client=http_client)
    said = {name: value for name, value in client.default_headers.items() if isinstance(value, str)}
    # A compressing proxy would hold events back until its block is full.
    said |= {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    return {**said, **client.auth_headers} if key else said


def _user_of(address: SplitResult) -> dict[str, str]:
    """Return what says who asks, where the address names a user: he takes the place of the key."""
    if not (address.username or address.password):
        return {}
    user, password = unquote(address.username or ""), unquote(address.password or "")
    return {"Authorization": aiohttp.encode_basic_auth(user, password)}


def _in_pieces(body: bytes) -> bytes | io.BytesIO:
    """Return a body as it is, or to be written piece by piece: megabytes at once would hold up the loop."""
    return body if len(body) <= _MAX_BYTES_AT_ONCE else io.BytesIO(body)


def _proxy_for(base_url: str) -> str | None:
    """Return the proxy that the environment names for a server."""
    address = urlsplit(base_url)
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    host = address.hostname or ""
    if not proxy or proxy_bypass(host) or proxy_bypass(f"{host}:{address.port or _PORTS[address.scheme]}"):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


async def _refusal(response: aiohttp.ClientResponse) -> ModelError:
    """Read as much of an answer that is no success as may say why."""
    body = b""
    # A body that breaks off takes nothing from what the status says.
    with suppress(*_CONNECTION_ERRORS):
        async with response:
            while len(body) < MAX_ERROR_BODY_BYTES and (read := await response.content.read(MAX_ERROR_BODY_BYTES)):
                body += read
    return refused(response.status, response.headers, body)


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
        if isinstance(cause, aiohttp.ClientHttpProxyError):
            # The proxy does not let us through, and the server has said nothing.
            return otherwise
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
