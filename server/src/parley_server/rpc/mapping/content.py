"""What a user sends: content parts."""

import re
from collections.abc import Iterable, Sequence

from parley.v1 import content_pb2 as pb

from parley_server.domain.content import (
    MAX_IMAGE_BYTES,
    MAX_INPUT_TEXT_BYTES,
    ContentPart,
    FilePart,
    ImagePart,
    TextPart,
)
from parley_server.domain.errors import InvalidRequestError, Violation
from parley_server.rpc.mapping.features import not_available

# What two readers of one address may take for two things; NUL no store takes.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")


def read_input(parts: Sequence[pb.ContentPart], path: str) -> tuple[ContentPart, ...]:
    """Read a request's input. `path` is its place in the request, for what is said of its faults.

    Raises:
        InvalidRequestError: a text is blank or holds NUL, an address holds what none may, or the texts or the images
            are too much together.
        FeatureNotAvailableError: there is a file.
    """
    faults = [
        Violation(f"{path}[{index}].text", fault)
        for index, part in enumerate(parts)
        if part.WhichOneof("content") == "text" and (fault := _fault_of(part.text))
    ]
    faults += [
        Violation(f"{path}[{index}].image.uri", "must not contain blanks, control characters or backslashes")
        for index, part in enumerate(parts)
        if _AMBIGUOUS.search(part.image.uri)
    ]
    if sum(len(part.text.encode()) for part in parts) > MAX_INPUT_TEXT_BYTES:
        faults.append(Violation(path, f"the text parts are over {MAX_INPUT_TEXT_BYTES} bytes together"))
    if sum(len(part.image.data) for part in parts) > MAX_IMAGE_BYTES:
        faults.append(Violation(path, f"the images are over {MAX_IMAGE_BYTES} bytes together"))
    if faults:
        raise InvalidRequestError.of_all(faults)
    return read_parts(parts)


def read_parts(parts: Iterable[pb.ContentPart]) -> tuple[ContentPart, ...]:
    """Read parts that were checked before. Raises FeatureNotAvailableError for a file."""
    return tuple(_read_part(part) for part in parts)


def write_parts(parts: Iterable[ContentPart]) -> list[pb.ContentPart]:
    """Return the parts as messages."""
    return [_write_part(part) for part in parts]


def _fault_of(text: str) -> str:
    if "\0" in text:
        return "must not contain NUL"
    return "" if text.strip() else "must not be blank"


def _read_part(part: pb.ContentPart) -> ContentPart:
    match part.WhichOneof("content"):
        case "image":
            return ImagePart(part.image.media_type, part.image.uri, part.image.data)
        case "file":
            raise not_available("file_input")
        case _:
            return TextPart(part.text)


def _write_part(part: ContentPart) -> pb.ContentPart:
    match part:
        case TextPart():
            return pb.ContentPart(text=part.text)
        case ImagePart() if part.uri:
            return pb.ContentPart(image=pb.Image(uri=part.uri, media_type=part.media_type))
        case ImagePart():
            return pb.ContentPart(image=pb.Image(data=part.content, media_type=part.media_type))
        case FilePart():
            return pb.ContentPart(file=pb.FileRef(file_id=part.file_id))
