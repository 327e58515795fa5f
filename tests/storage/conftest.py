from __future__ import annotations

import secrets

import pytest

pytest.register_assert_rewrite("tests.storage.store_contract")


@pytest.fixture
def role() -> str:
    """A role that no other test has, on a server that they share."""
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def name(role: str) -> str:
    """A record's name."""
    return f"{role}:{{3}}:thing:one"


@pytest.fixture
def other(role: str) -> str:
    """Another record's name, in another shard."""
    return f"{role}:{{4}}:thing:other"
