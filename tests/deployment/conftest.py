from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deployment.network import Network
from tests.servers import Servers


@pytest.fixture
async def network(servers: Servers, tmp_path: Path) -> AsyncIterator[Network]:
    """An empty directory and an empty store on running servers."""
    found = Network(servers, tmp_path)
    yield found
    await found.stop_all()
