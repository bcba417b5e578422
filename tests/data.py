"""Real files beside the repository that tests use where they are; they aren't part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def shared(name: str) -> Path:
    """A folder of the real files; without it the test is skipped."""
    for up in (ROOT.parent, ROOT.parent.parent):
        if (up / "shared/data" / name).is_dir():
            return up / "shared/data" / name
    pytest.skip(f"needs ../shared/data/{name}")
