"""Prometheus' own programs, which judge what is made for it."""

import os
import shutil

import pytest


def promtool() -> str:
    """Prometheus' tool for checks."""
    return _program("promtool")


def prometheus() -> str:
    """Prometheus itself."""
    return _program("prometheus")


def _program(name: str) -> str:
    """Where a program is; the test is skipped where it is not installed, but not in CI, which installs it."""
    found = shutil.which(name)
    if found is None and os.environ.get("PIXARIS_SYNC_TEST_LARGE") == "1":
        pytest.fail(f"{name} is missing: .ci/run installs it")
    if found is None:
        pytest.skip(f"{name} is not installed: it comes with the package prometheus of Debian and Ubuntu")
    return found
