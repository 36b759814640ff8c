"""What the users ask, and what the model answers: always the same for the same words, in several steps, with tools."""

TOOLS = ("look", "put", "book")
_WORDS = "and so it went on, one word after the other, and nothing was taken back"
KINDS = ("chain", "together", "story")


def prompt(kind: str, name: str) -> str:
    """Write what a user says; `name` is one word."""
    return f"{kind} {name}"


def answer(text: str) -> str:
    """Tell how the last answer to a prompt reads when nothing cuts it short."""
    kind, name = text.split()
    return {"chain": f"Done, {name}: {_WORDS}.", "together": f"All of {name} at once.", "story": _story(name)}[kind]


def script() -> dict[str, object]:
    """Return the script of the model, as docs/offline-model.md describes it."""
    chain = [_step("chain", "look"), _step("chain", "put", after="look"), _step("chain", "book", after="put")]
    together = _step("together", *TOOLS)
    last = [_last("chain", "book"), _last("together", "*"), _last("story", "")]
    return {"rules": [{**rule, "chunk_delay_ms": 4} for rule in [*chain, together, *last]]}


def _step(kind: str, *tools: str, after: str = "") -> dict[str, object]:
    calls = [{"name": name, "arguments": {"name": "{name}"}} for name in tools]
    return _rule(kind, after) | {"text": f"Now {' and '.join(tools)}, {{name}}.", "tool_calls": calls}


def _last(kind: str, after: str) -> dict[str, object]:
    return _rule(kind, after) | {"text": answer(f"{kind} {{name}}")}


def _rule(kind: str, after: str) -> dict[str, object]:
    when: dict[str, object] = {"when": rf"^{kind} (?P<name>\w+)$"}
    return when | {"after_tool": after} if after else when


def _story(name: str) -> str:
    return f"There was {name}, {_WORDS}, {_WORDS}."
