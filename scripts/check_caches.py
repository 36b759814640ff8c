"""Find what the server keeps beyond a call, and want a reason for whatever is not kept by user.

    python scripts/check_caches.py [FOLDER]      says what is new; FOLDER has modules and a shared_state.toml of its own

What is kept for users goes through `parley_server.domain.per_user`, where the user cannot be left out. Everything else
that could carry something of one user to another is in `scripts/shared_state.toml` with the reason why it does not:
caches of functions, mappings filled by key, pools, containers of modules and classes, weak references, ambient
variables, files that are written, tasks that begin with the variables of whoever happened to begin them.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "server" / "src" / "parley_server"
REASONS = Path(__file__).with_name("shared_state.toml")
# The one place where the user is a part of every key, and migrations, which keep nothing.
EXEMPT = ("domain/per_user.py", "storage/sql/migrations/")

_CACHES = {"lru_cache", "cache", "cached_property"}
_WEAK = {"WeakValueDictionary", "WeakKeyDictionary", "WeakSet"}
_AMBIENT = {"ContextVar", "local", "bind_contextvars", "bound_contextvars"}
_MAPPINGS = {"dict", "defaultdict", "OrderedDict", "Counter", "ChainMap", *_WEAK}
_LISTS = {"list", "set", "deque"}
_CHANGES = {"append", "appendleft", "add", "update", "setdefault", "pop", "popitem", "popleft", "insert", "extend"}
_QUEUES = {"Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"}
_POOLED = ("Connection]", "Client]", "Session]", "Channel]")
_TAKEN = {"pop", "popleft", "popitem"}
_WRITERS = {"write_text", "write_bytes", "mkstemp", "mkdtemp", "TemporaryFile", "NamedTemporaryFile"}


@dataclass(frozen=True)
class Kept:
    """Something that stays: `name` is `module.py:Class.attribute`, `module.py:function` or `module.py:NAME`."""

    name: str
    kind: str
    line: int


def kept_in(tree: ast.Module, path: str) -> Iterator[Kept]:
    """Yield what a module keeps, each once."""
    seen: set[tuple[str, str]] = set()
    changed = _changed_names(tree)
    for scope, node in _scopes(tree, ()):
        for name, kind in (*_by_node(node), *_by_body(node, changed)):
            whole = f"{path}:{'.'.join((*scope, *name))}"
            if (whole, kind) not in seen:
                seen.add((whole, kind))
                yield Kept(whole, kind, getattr(node, "lineno", 1))


Found = tuple[tuple[str, ...], str]


def _scopes(node: ast.AST, scope: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ast.AST]]:
    """Yield every node with the names of the classes and functions around it, its own among them."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        scope = (*scope, node.name)
    yield scope, node
    for child in ast.iter_child_nodes(node):
        yield from _scopes(child, scope)


def _by_node(node: ast.AST) -> Iterator[Found]:
    """Yield what shows wherever it stands; it is named by the function or class around it."""
    if isinstance(node, ast.Global):
        yield from (((name,), "a variable of the module") for name in node.names)
    if isinstance(node, ast.Import | ast.ImportFrom) and "tempfile" in ast.unparse(node):
        yield ("tempfile",), "temporary files"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from (((), "a cache") for each in node.decorator_list if _called(each) in _CACHES)
    if not isinstance(node, ast.Call):
        return
    called = _called(node)
    if called in _CACHES and not isinstance(node.func, ast.Call):
        yield (), "a cache"
    if called in _AMBIENT:
        yield (), "an ambient variable"
    if called == "create_pool":
        yield (), "a pool"
    if _writes_a_file(node):
        yield (), "a file that is written"
    if called in {"create_task", "ensure_future"} and "context" not in {each.arg for each in node.keywords}:
        yield (), "a task with the variables of whoever begins it"


def _by_body(node: ast.AST, changed: set[str]) -> Iterator[Found]:
    """Yield what modules and classes keep by name."""
    if isinstance(node, ast.Module | ast.ClassDef):
        for name, value in _bindings(node.body):
            if _is_empty(value) or (_is_container(value) and name in changed):
                yield (name,), "a container of the module or class"
    if isinstance(node, ast.ClassDef):
        yield from _attributes(node)


def _attributes(owner: ast.ClassDef) -> Iterator[Found]:
    """Yield the attributes of a class that are filled by key, or that things are taken out of again."""
    by_key, taken = set(_keyed_attributes(owner)), set(_called_attributes(owner, _TAKEN))
    is_frozen = any("frozen=True" in ast.unparse(each) for each in owner.decorator_list)
    pooled = {_own(node.target) for node in ast.walk(owner) if isinstance(node, ast.AnnAssign) and _is_pool(node)}
    for name, value in (*_attribute_values(owner), *_field_factories(owner, is_frozen=is_frozen)):
        if _container_name(value) in _WEAK:
            yield (name,), "weak references"
        elif _container_name(value) in _MAPPINGS and (_is_empty(value) or name in by_key):
            yield (name,), "a mapping"
        elif name in pooled or _called(value) in _QUEUES or (_container_name(value) in _LISTS and name in taken):
            yield (name,), "a pool"


def _is_pool(node: ast.AnnAssign) -> bool:
    """Tell whether an attribute is said to hold several connections."""
    return ast.unparse(node.annotation).endswith(_POOLED)


def _attribute_values(owner: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(owner):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((name, node.value) for target in targets if (name := _own(target)))


def _field_factories(owner: ast.ClassDef, *, is_frozen: bool) -> Iterator[tuple[str, ast.expr]]:
    """Yield the fields of a dataclass that begin as an empty container; one that is frozen is a value."""
    for name, value in _bindings(owner.body):
        if isinstance(value, ast.Call) and _called(value) == "field" and not is_frozen:
            factories = [each.value for each in value.keywords if each.arg == "default_factory"]
            yield from ((name, ast.Call(factory, [], [])) for factory in factories)


def _bindings(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for statement in body:
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            yield ast.unparse(statement.target), statement.value
        elif isinstance(statement, ast.Assign):
            yield from ((ast.unparse(target), statement.value) for target in statement.targets)


def _changed_names(tree: ast.Module) -> set[str]:
    """Return the names that something is put into, or taken out of, anywhere in a module."""
    subscripts = (node for node in ast.walk(tree) if isinstance(node, ast.Subscript))
    stored = {ast.unparse(each.value) for each in subscripts if not isinstance(each.ctx, ast.Load)}
    methods = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    called = {ast.unparse(f.value) for f in methods if isinstance(f, ast.Attribute) and f.attr in _CHANGES}
    return stored | called


def _keyed_attributes(owner: ast.ClassDef) -> Iterator[str]:
    for node in ast.walk(owner):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and (name := _own(node.value)):
            yield name
    yield from _called_attributes(owner, {"setdefault", "update"})


def _called_attributes(owner: ast.ClassDef, methods: set[str]) -> Iterator[str]:
    calls = (node.func for node in ast.walk(owner) if isinstance(node, ast.Call))
    yield from (_own(f.value) for f in calls if isinstance(f, ast.Attribute) and f.attr in methods)


def _own(node: ast.expr) -> str:
    """Return the name of an attribute of `self` or of the class; empty for anything else."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
        return node.attr
    return ""


def _called(node: ast.expr) -> str:
    """Return the last name of what is called, or used as a decorator."""
    inner = node.func if isinstance(node, ast.Call) else node
    inner = inner.value if isinstance(inner, ast.Subscript) else inner
    return inner.attr if isinstance(inner, ast.Attribute) else inner.id if isinstance(inner, ast.Name) else ""


def _container_name(value: ast.expr) -> str:
    """Return what kind of container an expression makes: the name of its type; empty for anything else."""
    displays = {ast.Dict: "dict", ast.DictComp: "dict", ast.List: "list", ast.ListComp: "list", ast.Set: "set"}
    name = displays.get(type(value), "set" if isinstance(value, ast.SetComp) else "")
    return name or (_called(value) if isinstance(value, ast.Call) else "")


def _is_container(value: ast.expr) -> bool:
    return _container_name(value) in _MAPPINGS | _LISTS


def _is_empty(value: ast.expr) -> bool:
    """Tell whether this makes an empty container, which waits to be filled. A Counter of metrics has a name."""
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List):
        return not value.elts
    if not isinstance(value, ast.Call) or not _is_container(value):
        return False
    return not value.args or _called(value) in {"defaultdict", *_WEAK}


def _writes_a_file(call: ast.Call) -> bool:
    if _called(call) in _WRITERS:
        return True
    if _called(call) != "open":
        return False
    words = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    words += [ast.unparse(each.value).strip("'") for each in call.keywords if each.arg == "mode"]
    return "O_CREAT" in ast.unparse(call) or any(word[:1] in "wax" and len(word) <= 3 for word in words if word)


def reasons_in(file: Path) -> Mapping[str, str]:
    """Return the reasons, by the names they are for. Raises ValueError for a name with two."""
    reasons: dict[str, str] = {}
    for entry in tomllib.loads(file.read_text(encoding="utf-8"))["kept"]:
        for name in entry["names"]:
            if name in reasons:
                raise ValueError(f"{name} has two reasons")
            reasons[name] = entry["reason"]
    return reasons


def main() -> int:
    """Say what is kept without a reason, and which reasons are for nothing; return the exit code."""
    sources, reasons_file = (SOURCES, REASONS) if len(sys.argv) == 1 else _folder(Path(sys.argv[1]))
    reasons = reasons_in(reasons_file)
    kept: list[Kept] = []
    for file in sorted(sources.rglob("*.py")):
        path = file.relative_to(sources).as_posix()
        if not path.startswith(EXEMPT):
            kept += kept_in(ast.parse(file.read_text(encoding="utf-8")), path)
    unexplained = [each for each in kept if each.name not in reasons]
    for each in unexplained:
        print(f"{each.name} (line {each.line}) is {each.kind}: keep it by user (domain/per_user.py), or say in "
              f"{reasons_file.name} why it carries nothing of one user to another", file=sys.stderr)  # fmt: skip
    stale = set(reasons) - {each.name for each in kept}
    for name in sorted(stale):
        print(f"{name} is in {reasons_file.name} and keeps nothing: remove it there", file=sys.stderr)
    return 1 if unexplained or stale else 0


def _folder(folder: Path) -> tuple[Path, Path]:
    return folder, folder / REASONS.name


if __name__ == "__main__":
    sys.exit(main())
