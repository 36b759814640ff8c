"""SECURITY.md claims what is shown: its tests and documents are there, its floors are those of the pyproject files."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = TEXT.partition("## What is defended")[2].partition("\n### ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def version_of(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


@pytest.mark.parametrize("row", rows(PROMISES), ids=lambda row: row[0][:40])
def test_every_promise_names_tests_that_are_there(row: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[2])
    assert named
    assert " ".join(f"`{file}::{test}`" for file, test in named) == row[2]
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_document_and_heading_it_leads_to_is_there() -> None:
    for path, _, heading in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", TEXT)):
        text = (ROOT / path).read_text(encoding="utf-8")
        headings = [re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines()]
        assert not heading or heading in headings, path
    for file in re.findall(r"`(tests/[\w/]+\.py)`", TEXT):
        assert (ROOT / file).is_file()


@pytest.mark.parametrize("row", rows(TEXT.partition("## Floors")[2]), ids=lambda row: row[0])
def test_the_floors_are_what_is_installed_with(row: list[str]) -> None:
    package, floor = row[0].strip("`"), row[1]
    wanted = tomllib.loads((ROOT / "server" / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    [line] = [line for line in wanted if re.match(rf"{re.escape(package)}(\[\w+\])?[>=<]", line)]
    assert f">={floor}" in re.split(r"[,;]|(?=>=)", line), line
    locked = re.search(rf"^{package}==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert locked
    assert version_of(locked[1]) >= version_of(floor)


def test_the_packages_that_read_what_strangers_send_have_floors() -> None:
    named = {row[0].strip("`") for row in rows(TEXT.partition("## Floors")[2])}
    assert {"aiohttp", "cryptography", "grpcio", "protobuf", "pyjwt"} <= named
