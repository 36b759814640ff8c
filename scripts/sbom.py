"""Write a software bill of materials of what Parley is installed with: CycloneDX 1.6 as JSON, on standard output.

    python scripts/sbom.py > parley.cdx.json

Everything is read off requirements.lock and the pyproject files, so the same tree gives the same bytes. A component has
the hashes of all its files that the lock allows. Its scope says what it is for: `required` by the server, the client or
the console, `optional` for an extra, `excluded` for what only developing Parley needs.
"""

import json
import re
import sys
import tomllib
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("protos/gen/python", "server", "clients/python", "plugins/console")
# A name of ours, so that the number is the same for the same lock.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:parley:sbom")
_ENTRY = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==(?P<version>\S+)(?: ; (?P<marker>.*?))? ?\\?$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^    #(?: via|  ) +(\S+)$")


@dataclass(frozen=True)
class Locked:
    """An entry of the lock; `parents` are the packages that need it."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    parents: tuple[str, ...]


def read_lock(text: str) -> list[Locked]:
    """Return the entries of a lock. Raises ValueError for one without hashes."""
    entries: list[Locked] = []
    for block in re.split(r"\n(?=[a-z0-9])", text.strip()):
        head, *rest = block.splitlines()
        match = _ENTRY.match(head)
        hashes = tuple(_HASH.findall(block))
        if match is None or not hashes:
            raise ValueError(f"requirements.lock: {head!r} is no version with hashes")
        parents = tuple(found[1] for line in rest if (found := _VIA.match(line)))
        entries.append(Locked(match["name"], match["version"], match["marker"] or "", hashes, parents))
    return entries


def document(entries: Collection[Locked], projects: Collection[Mapping[str, object]], serial: uuid.UUID) -> object:
    """Return the document for a lock and the projects of the workspace."""
    ours = {str(project["name"]): project for project in projects}
    required = _reachable(entries, set(ours))
    optional = _reachable(entries, set(_extras(projects))) | set(_extras(projects))
    scopes = {e.name: _scope(is_required=e.name in required, is_optional=e.name in optional) for e in entries}
    version = str(ours["parley-server"]["version"])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "parley", "name": "parley", "version": version}},
        "components": [*map(_own, ours.values()), *(_component(each, scopes[each.name]) for each in entries)],
        "dependencies": list(_dependencies(entries, ours)),
    }


def _scope(*, is_required: bool, is_optional: bool) -> str:
    return "required" if is_required else "optional" if is_optional else "excluded"


def _reachable(entries: Collection[Locked], roots: set[str]) -> set[str]:
    """Return what the roots need, and what that needs."""
    found: set[str] = set()
    reached = set(roots)
    while more := {each.name for each in entries if reached & set(each.parents)} - found:
        found |= more
        reached |= more
    return found


def _extras(projects: Collection[Mapping[str, object]]) -> Iterator[str]:
    for project in projects:
        extras = project.get("optional-dependencies", {})
        if not isinstance(extras, dict):
            raise TypeError(f"{project['name']}: its optional dependencies are no table")
        yield from (re.split(r"[^A-Za-z0-9._-]", line)[0] for lines in extras.values() for line in lines)


def _own(project: Mapping[str, object]) -> object:
    name, version = str(project["name"]), str(project["version"])
    licence = [{"license": {"id": str(project["license"])}}]
    return {"type": "library", "bom-ref": name, "name": name, "version": version, "licenses": licence}


def _component(entry: Locked, scope: str) -> object:
    purl = f"pkg:pypi/{entry.name}@{entry.version}"
    marker = [{"name": "parley:marker", "value": entry.marker}] if entry.marker else []
    return {
        "type": "library",
        "bom-ref": purl,
        "name": entry.name,
        "version": entry.version,
        "purl": purl,
        "scope": scope,
        "hashes": [{"alg": "SHA-256", "content": each} for each in entry.hashes],
        **({"properties": marker} if marker else {}),
    }


def _dependencies(entries: Collection[Locked], ours: Collection[str]) -> Iterator[object]:
    refs = {each.name: f"pkg:pypi/{each.name}@{each.version}" for each in entries} | {name: name for name in ours}
    yield {"ref": "parley", "dependsOn": sorted(ours)}
    for name, ref in sorted(refs.items()):
        yield {"ref": ref, "dependsOn": sorted({refs[each.name] for each in entries if name in each.parents})}


def main() -> int:
    """Write the document; return the exit code."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    projects = [tomllib.loads((ROOT / each / "pyproject.toml").read_text("utf-8"))["project"] for each in OURS]
    written = document(read_lock(lock), projects, uuid.uuid5(_NAMESPACE, lock))
    json.dump(written, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
