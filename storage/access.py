"""Who may do what in Redis or Valkey: the text of its access list (`aclfile`).

A role's records begin with its name, so its right is a prefix. A UE host's records are in its own memory: it
is no user here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from protocol.secret import Secret

_COMMANDS: Final = (
    # what storage/redis_store.py sends
    *("mget", "evalsha", "script|load", "client|setname", "time", "ping"),
    # what its scripts call
    *("getrange", "set", "del", "zadd", "zrem", "zrangebyscore", "hset", "hdel", "hget"),
)
_PREFIXES: Final = {
    "kms": ("kms", "custodian"),
    "bsf": ("bsf",),
    "cscf": ("cscf",),
    "voicemail": ("voicemail",),
    "transcoder": ("transcoder",),
    "conference": ("conference",),
    "setup": ("kms", "bsf"),  # writes subscribers down before anything runs
}
_NOBODY: Final = "user default off resetpass ~* &* +@all"
"""Nobody can be this user, yet it must be allowed everything: what scripts have written is read back from the
append-only file as if by this user, and what it may not do is silently dropped (valkey-io/valkey#3983)."""
_ONLY_LOOKING: Final = "+ping +time +client|setname"

STORE_USERS: Final = (*_PREFIXES, "operator")
"""All who log in with a password."""


def access_list(passwords: Mapping[str, Secret]) -> str:
    """One line for each user. passwords: of STORE_USERS; only their hashes are in the text."""
    lines = [_NOBODY, "user health on nopass -@all +ping"]
    for user, prefixes in _PREFIXES.items():
        keys = " ".join(f"~{prefix}:*" for prefix in prefixes)
        commands = " ".join(f"+{command}" for command in _COMMANDS)
        lines.append(f"user {user} on {_hash(passwords[user])} resetchannels {keys} -@all {commands}")
    lines.append(f"user operator on {_hash(passwords['operator'])} resetchannels -@all {_ONLY_LOOKING}")
    return "\n".join(lines) + "\n"


def _hash(password: Secret) -> str:
    return f"#{hashlib.sha256(password.reveal()).hexdigest()}"
