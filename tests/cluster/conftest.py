"""Runs on a cluster end with their test."""

from __future__ import annotations

import pytest

from tests.cluster_runs import end_all


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Let no run of a test that failed go on, not even while fixtures mend what they made."""
    end_all()
