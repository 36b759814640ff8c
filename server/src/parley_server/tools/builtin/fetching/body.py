"""Reading an answer: only text, only so much of it, however well it is packed."""

import zlib

import aiohttp

from parley_server.tools.errors import ToolError

_TEXTS = frozenset({"application/json", "application/xml", "application/javascript", "application/yaml"})
_TEXT_SUFFIXES = ("+json", "+xml")
_GZIP = 31


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> tuple[bytes, bool]:
    """Read at most `max_bytes`, of what was sent and of what comes out of it; tell whether there was more.

    Raises:
        ToolError: it is no text, or packed in a way that is not known.
    """
    kind = response.content_type
    if not (kind.startswith("text/") or kind in _TEXTS or kind.endswith(_TEXT_SUFFIXES)):
        raise ToolError("unsupported_content", "The page is no text.")
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing not in {"identity", "", "gzip", "x-gzip"}:
        raise ToolError("unsupported_content", "The page is packed in a way that is not known here.")
    body, truncated = await _read(response, max_bytes)
    return _unpacked(body, max_bytes, truncated=truncated) if packing.endswith("gzip") else (body, truncated)


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            break
    return bytes(body[:max_bytes]), len(body) > max_bytes


def _unpacked(body: bytes, max_bytes: int, *, truncated: bool) -> tuple[bytes, bool]:
    try:
        plain = zlib.decompressobj(_GZIP).decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise ToolError("unsupported_content", "The page is not packed as it says.") from error
    return plain[:max_bytes], truncated or len(plain) > max_bytes
