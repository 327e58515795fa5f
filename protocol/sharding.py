"""Which shard a call or a key belongs to: its partition on the bus and its hash tag in the store.

Both are the same number, so that the owner of a partition finds the timers of its calls.
"""

from __future__ import annotations

import itertools
import zlib
from typing import Final

SHARDS: Final = 12  # enough for 12 instances of a role; changing it moves every record, so it is code


def shard_of(key: str) -> int:
    """0 to SHARDS - 1; CRC-32, which every language has."""
    return zlib.crc32(key.encode()) % SHARDS


def string_in(shard: int) -> str:
    """Some string of this shard: for who looks into all of them, and knows no call."""
    return _STRINGS[shard]


def call_key(caller: str, call: bytes) -> str:
    """Names a call: C is unique for one ID-A only (section 1)."""
    return f"{caller}/{call.hex()}"


_STRINGS: Final = tuple(
    next(text for text in map(str, itertools.count()) if shard_of(text) == shard) for shard in range(SHARDS)
)
