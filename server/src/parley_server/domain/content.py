"""What a user may send: parts of text, images and files."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text, kept byte for byte."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image by address or by value; exactly one of `uri` and `content` is set."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    media_type: str
    uri: str = ""
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file that was uploaded before."""

    file_id: str


ContentPart = TextPart | ImagePart | FilePart

MAX_INPUT_TEXT_BYTES = 256 * 1024
# Of a run: its input and all that is added to it.
MAX_IMAGE_BYTES = 3 * 1024 * 1024


def text_of(parts: tuple[ContentPart, ...]) -> str:
    """Join the text parts, a blank line between them."""
    return "\n\n".join(part.text for part in parts if isinstance(part, TextPart))


def image_bytes_of(parts: Iterable[ContentPart]) -> int:
    """Sum the bytes of the images that are given by value."""
    return sum(len(part.content) for part in parts if isinstance(part, ImagePart))


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable_text(text: str) -> str:
    """Replace what a model or a tool may say and no store or wire takes: NUL and lone surrogates become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)
