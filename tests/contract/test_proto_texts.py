"""The words of the protos: every declaration has its comment, and what others made is as it came."""

import hashlib
import json
import re
from pathlib import Path

import google.rpc
import pytest
from contract.contract_files import (
    DECLARATIONS,
    ENUMS,
    FIELDS,
    FILES,
    MESSAGES,
    METHODS,
    ROOT,
    SERVICES,
    THIRD_PARTY,
    snake_case,
)
from contract.proto_source import Declaration


def test_the_text_declares_what_the_descriptors_hold() -> None:
    """Nothing escapes the tests of comments, and the generated code has the names of the files beside it."""
    expected = [message.name for message in MESSAGES]
    expected += [field.name for field in FIELDS]
    expected += [oneof.name for message in MESSAGES for oneof in message.oneofs if not oneof.name.startswith("_")]
    expected += [name for enum in ENUMS for name in (enum.name, *(value.name for value in enum.values))]
    expected += [service.name for service in SERVICES] + [method.name for method in METHODS]
    expected += [name for file in FILES for name in file.extensions_by_name]
    assert sorted(declaration.name for declaration in DECLARATIONS) == sorted(expected)


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=str)
def test_a_comment_opens_with_the_name_and_says_something(declaration: Declaration) -> None:
    opening = re.match(rf"{declaration.name}[ :,]", declaration.comment)
    assert opening is not None
    assert len(declaration.comment.split()) >= 3
    assert declaration.comment.rstrip().endswith((".", "}"))


OPTIONAL = [d for d in DECLARATIONS if re.search(r"lacks\s+the\s+feature", d.comment)]


@pytest.mark.parametrize("declaration", [d for d in OPTIONAL if d.kind == "rpc"], ids=str)
def test_an_optional_rpc_is_a_feature_of_its_own_name(declaration: Declaration) -> None:
    comment = " ".join(declaration.comment.split())
    feature = snake_case(declaration.name)
    assert comment.endswith(f"A server that lacks the feature `{feature}` answers UNIMPLEMENTED.")


@pytest.mark.parametrize("declaration", [d for d in OPTIONAL if d.kind != "rpc"], ids=str)
def test_an_optional_option_says_how_it_is_refused(declaration: Declaration) -> None:
    comment = " ".join(declaration.comment.split())
    refusal = r"A server that lacks the feature `[a-z_]+` answers FAILED_PRECONDITION `FEATURE_NOT_AVAILABLE`"
    assert re.search(refusal, comment)


def test_vendored_files_are_the_ones_the_readme_names() -> None:
    readme = (THIRD_PARTY / "README.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"^\| `([^`]+\.proto)` \|.*\| `([0-9a-f]{64})` \|$", readme, re.MULTILINE))
    found = {
        path.relative_to(THIRD_PARTY).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in THIRD_PARTY.rglob("*.proto")
    }
    assert named == found


def test_vendored_google_files_are_those_of_the_installed_package() -> None:
    """The generated code imports google.rpc from that package, so the two have to agree."""
    installed = Path(next(iter(google.rpc.__path__)))
    vendored = list((THIRD_PARTY / "googleapis" / "google" / "rpc").glob("*.proto"))
    assert vendored
    for path in vendored:
        assert path.read_bytes() == (installed / path.name).read_bytes()


def test_the_lock_of_the_proto_tools_names_no_place_to_fetch_from() -> None:
    lock = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))
    assert all("resolved" not in package for package in lock["packages"].values())
