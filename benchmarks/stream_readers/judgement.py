"""Whether a reader made of a case what should come of it, by rules that are the same for all."""

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from stream_readers.telling import Told
from streams.corpus import Expected, ExpectedCall
from streams.verdict import differences

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Verdict(StrEnum):
    """`RAW` is an error where one is right, but of no class of the library's."""

    RIGHT = "yes"
    RAW = "yes, raw"
    WRONG = "no"


@dataclass(frozen=True)
class Judgement:
    """A verdict, and in a few words what came."""

    verdict: Verdict
    came: str = ""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.came}" if self.came else str(self.verdict)


def judge(expected: Expected, told: Told, packages: tuple[str, ...]) -> Judgement:
    """Judge; `packages` are those whose exceptions count as the library's."""
    if told.error == "hangs":
        return Judgement(Verdict.WRONG, "hangs")
    if expected.outcome == "error":
        return _of_error(told, packages)
    if told.error:
        return Judgement(Verdict.WRONG, told.error.rpartition(".")[2])
    wrong = differences(expected, _in_its_terms(expected, told))
    return Judgement(Verdict.WRONG, _shortly(wrong)) if wrong else Judgement(Verdict.RIGHT)


def _of_error(told: Told, packages: tuple[str, ...]) -> Judgement:
    if not told.error:
        # Whoever runs such a call finds out.
        if any(not _is_json(call.arguments) for call in told.calls):
            return Judgement(Verdict.RIGHT)
        return Judgement(Verdict.WRONG, "no error")
    if told.error.partition(".")[0] in packages:
        return Judgement(Verdict.RIGHT)
    return Judgement(Verdict.RAW, told.error.rpartition(".")[2])


def _in_its_terms(expected: Expected, told: Told) -> Expected:
    """Say what was told in the corpus's terms; what is not compared is taken as right."""
    calls = [
        ExpectedCall(call.id or f"made up {number}", call.name, call.arguments)
        for number, call in enumerate(told.calls)
    ]
    is_refused = bool(expected.refusal) and told.text + told.refusal == expected.text + expected.refusal
    return Expected(
        "complete",
        None,
        expected.text if is_refused else _storable(told.text),
        expected.reasoning,
        expected.refusal,
        tuple(calls),
        expected.finish,
        expected.usage,
    )


def _storable(text: str) -> str:
    """Put U+FFFD in place of what not every store and no UTF-8 can hold; who leaves it in is right as well."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _shortly(wrong: list[str]) -> str:
    kinds = ("text", "tool call")
    return next((kind for kind in kinds if wrong[0].startswith(kind)), wrong[0])


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
