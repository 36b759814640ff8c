"""A package that brings something of its own by entry points, as if it were installed beside the server."""

from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, module: str, source: str, group: str, points: Mapping[str, str]) -> None:
    """Write a module and its entry points, by their names, into a directory from which modules are imported."""
    (folder / f"{module}.py").write_text(source)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
