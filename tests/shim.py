"""Shims: C that stands before the calls of a process, loaded into it by LD_PRELOAD."""

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path


def why_not() -> str:
    """Say why no shim can be made here; empty when one can."""
    if os.uname().sysname != "Linux":
        return "the shim is for Linux"
    return "" if shutil.which("gcc") else "there is no gcc to compile the shim"


@cache
def compiled(source: Path) -> Path:
    """Compile a shim, once in this process; returns the library."""
    folder = tempfile.mkdtemp(prefix="parley-shim-")
    atexit.register(shutil.rmtree, folder)
    library = Path(folder, source.with_suffix(".so").name)
    # Optimized, such a shim has crashed its process.
    command = ["gcc", "-O0", "-Wall", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library
