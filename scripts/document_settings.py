"""Write docs/configuration.md from the models of the settings, or prove that it is what would be written.

`python scripts/document_settings.py` writes it; with `--check` it writes nothing and ends with 1 when the file differs.
The meaning of a setting is the text that stands below it in its model.
"""

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from parley_server.settings import FALL_BACKS, NAMED_TABLES, SECTIONS
from parley_server.settings_tables import FILE_SUFFIX, Place, header, secret_keys, sub_tables, variable
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
# Where JSON schema has no word for it.
_TYPES = {"string": "text", "boolean": "true or false", "number": "number", "integer": "whole number"}

HEAD = """\
<!-- Made by `python scripts/document_settings.py` from the models of the settings; change those. -->

# Configuration

Nothing has to be set. What is set comes from four places, the later over the earlier:

1. the defaults below,
2. one configuration file: the one that `--config` names, else `parley.toml` in the working directory, else
   `parley.toml` in the data directory,
3. the environment: `PARLEY_SECTION__KEY`, with two underscores,
4. the command line (`--listen`).

```toml
# parley.toml
[model]
base_url = "http://localhost:11434/v1"
name = "llama3.2"
```

A table in a table gets one more word: `PARLEY_MODEL__PROFILE__IMAGES` is `images` of `[model.profile]`. Where the
table's name is yours, the variable holds it in capital letters: `PARLEY_PROVIDERS__GROQ__BASE_URL` is `base_url` of
`[providers.groq]`; a name that no variable can hold, as of `[prices."gpt-4.1"]`, stands in the file. A list is written
with commas in the environment.

An unknown section, key or variable is an error, so that no misspelling passes silently.

- `parley-server config check` says all that is wrong, a line for each, with the place, the setting and the remedy. It
  ends with 0, or with 78 when something is wrong. The server itself refuses to start with the same words.
- `parley-server config show` prints the settings in force as a configuration file, without secrets (`--redacted`).
  `--with-secrets` prints them, too: for copying a configuration, never for a log.
- The data directory is `--data-dir`, else `PARLEY_HOME`, else the platform's.

## Secrets

Every setting marked *secret* can stand in a file of its own: `api_key_file` in the configuration file or
`PARLEY_MODEL__API_KEY_FILE` in the environment name it, and so on. The file's text is the value, without the blanks
around it. Write an absolute path; a relative one begins at the working directory. Naming a secret and its file in the
same place is an error.
"""


def main(arguments: Sequence[str]) -> int:
    """Write or check; return the exit code."""
    text = document()
    if arguments == ["--check"]:
        if DOCUMENT.read_text(encoding="utf-8") == text:
            return 0
        print(f"{DOCUMENT.name} is not what the settings give; run python scripts/document_settings.py")
        return 1
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


def document() -> str:
    """Return the whole document."""
    tables: dict[Place, type[BaseModel]] = {(name,): model for name, model in SECTIONS.items()}
    tables |= {(kind, "NAME"): model for kind, model in NAMED_TABLES.items()}
    written: dict[type[BaseModel], Place] = {}
    return "\n".join([HEAD, *(line for place, model in tables.items() for line in table(place, model, written))])


def table(place: Place, model: type[BaseModel], written: dict[type[BaseModel], Place]) -> Iterator[str]:
    """Yield the lines of one table and of those in it; `written` are the models that had their lines already."""
    yield f"## `{header(place)}`\n"
    if model in written:
        yield f"The keys of `{header(written[model])}`.\n"
        return
    written[model] = place
    summary = inspect.getdoc(model) or ""
    yield _sentence(summary.removeprefix(f"`{header(place)}`: ")) + "\n"
    if rows := list(_rows(place, model)):
        yield "| key | variable | value | default | meaning |"
        yield "| --- | --- | --- | --- | --- |"
        yield from rows
        yield ""
    for key, below in sub_tables(model).items():
        yield from table((*place, key), below, written)


def _rows(place: Place, model: type[BaseModel]) -> Iterator[str]:
    """Yield a line for each setting of a table, not of those in it."""
    meanings = meanings_of(model)
    secrets = secret_keys(place[0], model)
    schema = _properties(model)
    for key, field in model.model_fields.items():
        if key not in sub_tables(model):
            fall_back = f"; else `{FALL_BACKS[key]}`" if place == ("model",) and key in FALL_BACKS else ""
            secret = f"*secret* (also `{key}{FILE_SUFFIX}`). " if key in secrets else ""
            name = f"`{variable((*place, key))}`{fall_back}"
            yield f"| `{key}` | {name} | {_value(schema[key])} | {_default(place, field)} | {secret}{meanings[key]} |"


def meanings_of(model: type[BaseModel]) -> dict[str, str]:
    """Return what stands below each setting in its model, on one line. Raises LookupError for one without a text."""
    meanings: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            meanings |= _own_meanings(each)
    if missing := model.model_fields.keys() - sub_tables(model).keys() - meanings.keys():
        raise LookupError(f"{model.__name__} says nothing below {', '.join(sorted(missing))}")
    return meanings


def _own_meanings(model: type[BaseModel]) -> dict[str, str]:
    (tree,) = (node for node in ast.walk(ast.parse(inspect.getsource(model))) if isinstance(node, ast.ClassDef))
    meanings = {}
    for statement, below in zip(tree.body, tree.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                meanings[key] = " ".join(text.split())
    return meanings


def _properties(model: type[BaseModel]) -> dict[str, dict[str, object]]:
    """Return the schemas of a model's keys, with what they refer to in its place."""
    schema = model.model_json_schema()
    shared: dict[str, dict[str, object]] = schema.get("$defs", {})

    def resolved(value: dict[str, object]) -> dict[str, object]:
        found = {**shared.get(str(value.get("$ref", "")).rpartition("/")[2], {}), **value}
        if isinstance(alternatives := found.get("anyOf"), list):
            found["anyOf"] = [resolved(each) for each in alternatives]
        return found

    return {key: resolved(value) for key, value in schema["properties"].items()}


def _value(schema: dict[str, object]) -> str:
    """Say what a setting takes."""
    if isinstance(choices := schema.get("enum"), list):
        return ", ".join(f"`{choice}`" for choice in choices)
    if isinstance(alternatives := schema.get("anyOf"), list):
        return ", ".join(_value(each) for each in alternatives if each.get("type") != "null")
    if schema.get("type") == "array":
        return "list"
    if schema.get("type") == "object":
        return "pairs"
    kind = "path" if schema.get("format") == "path" else _TYPES[str(schema["type"])]
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum")
    if least is None:
        return kind
    return f"{kind}, {'above' if 'exclusiveMinimum' in schema else 'from'} {least:,.15g} to {most:,.15g}"


def _default(place: Place, field: FieldInfo) -> str:
    if field.is_required():
        return "required with a base URL" if place == ("model",) else "required"
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    return "-" if default in (None, "", (), {}) else f"`{json.dumps(default)}`"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
