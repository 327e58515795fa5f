"""Thousands of simulated deployments log nothing: each would tell of every grant."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


def say_nothing() -> None:
    """No line of an agent below a bug is written in this process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    say_nothing()
    yield
    structlog.reset_defaults()
