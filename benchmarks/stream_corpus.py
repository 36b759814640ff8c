"""The corpus of malformed model streams read by Parley and by other libraries: who gives the user what was sent.

    python benchmarks/stream_corpus.py [--only parley,openai-stream] [--table docs/streams.md] [--json FILE]

Every case of tests/streams is served by a real HTTP server on loopback and read by a program for each library, in a
virtual environment of its own under .venv-bench. Each library is taken at the layer that makes a message of a stream,
with its defaults and without retries. The rules of the verdict are printed under the table.
"""

import argparse
import asyncio
import json
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from documents import write_between
from model_server import ModelServer, RawAnswer
from stream_readers.judgement import Judgement, Verdict, judge
from stream_readers.telling import Told
from streaming.environments import Environment, NotInstalledError
from streaming.processes import SERVER_CORE, first_line, running, tell
from streams.corpus import Case, cases

OPENAI = Environment("openai", ("openai",))
PYDANTIC_AI = Environment("pydantic-ai-alone", ("pydantic-ai-slim[openai]", "openai"))
OPENAI_AGENTS = Environment("openai-agents", ("openai-agents", "openai"))


@dataclass(frozen=True)
class Reader:
    """A way to read a stream: its title, its program, the packages whose exceptions it is known for."""

    title: str
    program: str
    packages: tuple[str, ...]
    environment: Environment | None = None

    @property
    def python(self) -> str:
        """Its interpreter."""
        return self.environment.python if self.environment else sys.executable

    def versions(self) -> dict[str, str]:
        """Return the versions of what it needs."""
        names = ("parley-server", "openai")
        return self.environment.versions() if self.environment else {name: version(name) for name in names}


READERS = {
    "parley": Reader("Parley", "parley_service", ("parley_server",)),
    "openai-stream": Reader("openai `.stream()`", "openai_helper", ("openai",), OPENAI),
    "openai-create": Reader("openai, by hand", "openai_plain", ("openai",), OPENAI),
    "pydantic-ai": Reader("pydantic-ai", "pydantic_ai_model", ("pydantic_ai", "openai"), PYDANTIC_AI),
    "openai-agents": Reader("openai-agents", "openai_agents_model", ("agents", "openai"), OPENAI_AGENTS),
}

RULES = """A library passes a case (*yes*) when the user gets the right text and the right tool calls, or an error where
an error is right. Text is compared as it is, save that NUL and lone surrogates may stay or be replaced; a refusal may
come as text. Calls are compared by name, by the value of their arguments, be they text or an object, by their order,
and by the id where the server sent one; no two may have the same id. Why the answer ended, the usage, the reasoning and
what was said before an error are not compared. Any exception is an error; *raw* marks one that is of no class of the
library or of the SDK under it. A call whose arguments are no JSON counts as an error where one is right, since whoever
runs it finds out. After *no* stands what came instead: *text* and *tool call* are wrong ones, *no error* is a whole
answer where there was none, and a name is that of the exception that came in place of the answer. Chunks that
lack `object` are served with it, since the SDK's helper passes over those without. Where a case is too large to be
taken, a library without limits fails."""


async def read_all(reader: Reader) -> dict[str, Told]:
    """Let a reader read every case; what it tells by the case's name."""
    told: dict[str, Told] = {}
    async with ModelServer() as server:
        arguments = [reader.python, "-m", f"stream_readers.{reader.program}", server.base_url]
        with running(SERVER_CORE, arguments) as process:
            for number, case in enumerate(cases(), 1):
                server.enqueue(_answer(case))
                tell(process, case.name)
                told[case.name] = Told.from_json(await asyncio.to_thread(first_line, process))
                if len(server.requests) != number:
                    raise RuntimeError(f"{reader.title} asked {len(server.requests)} times for {number} cases")
    return told


def _answer(case: Case) -> RawAnswer:
    """Return what the server sends: the case, its chunks with the `object` that one library asks of every chunk.

    A case that is about something else would tell nothing of that library otherwise.
    """
    body = case.body.replace(b'data: {"choices":[{', b'data: {"object":"chat.completion.chunk","choices":[{')
    headers = {"Content-Type": case.response.content_type, **case.response.headers}
    then: Literal["reset", "end"] = "reset" if case.response.end == "reset" else "end"
    return RawAnswer([body], case.response.status, headers, then=then)


def table(judged: Mapping[str, Mapping[str, Judgement]]) -> str:
    """Return the totals, and below them the verdicts case by case."""
    titles = " | ".join(READERS[name].title for name in judged)
    counts = {name: Counter(judgement.verdict for judgement in found.values()) for name, found in judged.items()}
    right = [f"{count[Verdict.RIGHT] + count[Verdict.RAW]} ({count[Verdict.RAW]} raw)" for count in counts.values()]
    head = f"| {titles} |\n{'| --- ' * (len(judged) + 1)}|"
    lines = [f"| right, of {len(cases())} {head}", f"| all | {' | '.join(right)} |"]
    for family in dict.fromkeys(case.family for case in cases()):
        names = [case.name for case in cases() if case.family == family]
        rights = [sum(found[name].verdict is not Verdict.WRONG for name in names) for found in judged.values()]
        lines.append(f"| {family}, of {len(names)} | {' | '.join(map(str, rights))} |")
    rows = [f"| {case.name} | {' | '.join(str(found[case.name]) for found in judged.values())} |" for case in cases()]
    return "\n".join([*lines, "", f"| case {head}", *rows])


def main() -> None:
    """Read, judge and print."""
    options = _options()
    told: dict[str, dict[str, Told]] = {}
    notes = []
    for name in options.only:
        reader = READERS[name]
        try:
            if reader.environment:
                reader.environment.ensure()
        except NotInstalledError as error:
            notes.append(f"{reader.title}: not installed, {error}")
            continue
        told[name] = asyncio.run(read_all(reader))
        versions = ", ".join(f"{package} {number}" for package, number in reader.versions().items())
        notes.append(f"{reader.title}: {versions}")
    judged = {
        name: {case.name: judge(case.expected, found[case.name], READERS[name].packages) for case in cases()}
        for name, found in told.items()
    }
    head = f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}. {'; '.join(notes)}."
    text = f"{head}\n\n{table(judged)}\n\n{RULES}"
    print(text)
    if options.json:
        listed = {name: {case: asdict(each) for case, each in found.items()} for name, found in told.items()}
        options.json.write_text(json.dumps(listed, indent=1), encoding="utf-8")
    if options.table:
        write_between(options.table, "bench-streams", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_names, default=list(READERS), help=f"some of {','.join(READERS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what every reader told there")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the tables there, between the markers")
    return parser.parse_args()


def _names(words: str) -> list[str]:
    names: Sequence[str] = words.split(",")
    if unknown := set(names) - READERS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return list(names)


if __name__ == "__main__":
    main()
