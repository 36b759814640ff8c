"""What the tests need of Node. It is nobody's duty to have it, save that of the machine that checks changes."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE_MODULES = ROOT / "node_modules"
BUF = NODE_MODULES / ".bin" / "buf"


def require_node(*packages: str) -> None:
    """Skip the test where Node or one of its packages is missing; fail where CI=true and only the packages are."""
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    missing = [package for package in packages if not (NODE_MODULES / package).is_dir()]
    if missing and os.environ.get("CI"):
        pytest.fail(f"npm ci has not installed {', '.join(missing)}")
    if missing:
        pytest.skip(f"npm ci would install {', '.join(missing)}")
