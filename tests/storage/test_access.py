"""The store's access list: hashes only, a role's own prefix, nobody by default."""

from __future__ import annotations

import hashlib

from protocol.secret import Secret
from storage.access import STORE_USERS, access_list

PASSWORDS = {user: Secret(f"password of {user}".encode()) for user in STORE_USERS}
LINES = {line.split()[1]: line.split() for line in access_list(PASSWORDS).splitlines()}


def test_no_password_is_in_it() -> None:
    for user, password in PASSWORDS.items():
        assert password.reveal().decode() not in access_list(PASSWORDS)
        assert f"#{hashlib.sha256(password.reveal()).hexdigest()}" in LINES[user]


def test_each_has_its_own_prefixes() -> None:
    prefixes = {user: {word for word in line if word.startswith("~")} for user, line in LINES.items()}
    assert prefixes["kms"] == {"~kms:*", "~custodian:*"}
    assert prefixes["bsf"] == {"~bsf:*"}
    assert prefixes["cscf"] == {"~cscf:*"}
    assert prefixes["operator"] == prefixes["health"] == set()
    for user in STORE_USERS:
        assert "-@all" in LINES[user]
        assert not {"+get", "+scan", "+keys", "+eval", "+flushall", "+config", "+acl"} & set(LINES[user])


def test_nobody_can_be_the_user_as_whom_the_log_is_read_back() -> None:
    """valkey-io/valkey#3983: without these rights all records are dropped at the next start."""
    assert LINES["default"][2:] == ["off", "resetpass", "~*", "&*", "+@all"]
