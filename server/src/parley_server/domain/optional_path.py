"""A path in the settings that may be left out."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator


def _none_if_empty(path: object) -> object:
    return None if path == "" else path


# `Path("")` is the directory that the server was started in, which nobody means.
OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty)]
