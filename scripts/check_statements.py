"""Find statements that take a user's rows by an id alone.

    python scripts/check_statements.py [FOLDER]     FOLDER has modules and an unowned_statements.toml of its own

Every select, update and delete in `storage/sql` says whose rows it means, by a condition on a `user_id` that can be
read off the module it stands in. Those that do not are in `scripts/unowned_statements.toml`, by module or by name, with
the reason why nobody gets at another's rows by them.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "server" / "src" / "parley_server" / "storage" / "sql"
REASONS = Path(__file__).with_name("unowned_statements.toml")
EXEMPT = "migrations/"

_MAKERS = {"select", "update", "delete"}
# A comparison, in SQLAlchemy's words or in SQL, or a key that the columns are compared with.
_OWNED = re.compile(r"\buser_id ==|\buser_id = |'user_id': \w+(\.\w+)*\.user_id\b")
_RAW = re.compile(r"\b(SELECT|UPDATE|DELETE)\b")
_MAX_DEPTH = 6

Definitions = Mapping[str, list[ast.AST]]


def unowned_in(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the statements of a module that name no user: where each stands and its line, each place once."""
    named = _definitions(tree.body)
    seen: set[str] = set()
    for place, expression, local in _statements(tree):
        known = {**named, **local}
        if place not in seen and not _says_whose(expression, known):
            seen.add(place)
            yield place, expression.lineno


def _statements(tree: ast.Module) -> Iterator[tuple[str, ast.expr, Definitions]]:
    """Yield every whole statement with the name of what it stands in, and what is defined there."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from _in_function(inner, f"{node.name}.{inner.name}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _in_function(node, node.name)
        else:
            name = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else _target(node)
            yield from ((name, each, {}) for each in _whole_statements(node))


def _in_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, place: str
) -> Iterator[tuple[str, ast.expr, Definitions]]:
    local = _definitions(list(_all_statements(node)))
    yield from ((place, each, local) for each in _whole_statements(node))


def _target(node: ast.AST) -> str:
    return ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else ""


def _all_statements(node: ast.AST) -> Iterator[ast.stmt]:
    yield from (each for each in ast.walk(node) if isinstance(each, ast.stmt) and each is not node)


def _whole_statements(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions that make a statement, each with all that is added to it by methods."""
    if isinstance(node, ast.expr) and _makes_one(node):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from _whole_statements(child)


def _makes_one(node: ast.expr) -> bool:
    """Tell whether this is `select(...)`, `update(...)`, `delete(...)`, a method of one, or SQL that is one."""
    while isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return node.func.id in _MAKERS or (node.func.id == "text" and bool(_RAW.search(ast.unparse(node))))
        if not isinstance(node.func, ast.Attribute):
            return False
        node = node.func.value
    return False


def _definitions(body: list[ast.stmt]) -> dict[str, list[ast.AST]]:
    """Return what names stand for: the values given to them, and the functions of a module."""
    found: dict[str, list[ast.AST]] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.setdefault(node.name, []).append(node)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                found.setdefault(ast.unparse(target), []).append(node.value)
    return found


def _says_whose(expression: ast.AST, known: Definitions, depth: int = 0) -> bool:
    """Tell whether a condition on a user's id is in an expression, or in what the names in it stand for."""
    if _OWNED.search(ast.unparse(expression)):
        return True
    names = {each.id for each in ast.walk(expression) if isinstance(each, ast.Name)} if depth < _MAX_DEPTH else set()
    return any(_says_whose(each, known, depth + 1) for name in names for each in known.get(name, []))


def main() -> int:
    """Say which statements are whose nobody says, and which reasons are for nothing; return the exit code."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    sources, reasons = folder or SOURCES, (folder / REASONS.name) if folder else REASONS
    listed = {name for entry in tomllib.loads(reasons.read_text(encoding="utf-8"))["kept"] for name in entry["names"]}
    found: set[str] = set()
    for file in sorted(sources.rglob("*.py")):
        path = file.relative_to(sources).as_posix()
        if path.startswith(EXEMPT):
            continue
        for place, line in unowned_in(ast.parse(file.read_text(encoding="utf-8"))):
            name = path if path in listed else f"{path}:{place}"
            found.add(name)
            if name not in listed:
                print(f"{name} (line {line}) does not say whose rows it means: add a condition on user_id, or say in "
                      f"{reasons.name} why nobody gets at another's by it", file=sys.stderr)  # fmt: skip
    for name in sorted(listed - found):
        print(f"{name} is in {reasons.name} and says whose: remove it there", file=sys.stderr)
    return 1 if found ^ listed else 0


if __name__ == "__main__":
    sys.exit(main())
