"""Puts what a benchmark found into a document."""

from pathlib import Path

END = "<!-- until here -->"


def write_between(document: Path, target: str, text: str) -> None:
    """Replace what is between the markers of a make target. Raises LookupError when there are none."""
    begin = f"<!-- made by `make {target}` -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise LookupError(f"{document} has no {begin} with {END} after it")
    document.write_text(f"{before}{begin}\n\n{text}\n\n{END}{after}", encoding="utf-8")
