"""A confused KMS: its answers are sealed under the right keys, for the right token, and wrong inside.

What it gets wrong is one thing at a time: another run's nonce (OR-21), another peer (OR-22), a lifetime that
has passed (OR-23). A handset that skips the check takes a key that nobody else has. A mailbox is confused as
well: it tells another answer than the one that the KMS has sealed (OR-24).
"""

from __future__ import annotations

import random as seeded
from collections.abc import Mapping

import msgspec

from protocol.checks import Refused
from protocol.description import BodyMalformed, SrtpSuite, read_description
from protocol.evidence import Grant, Holder
from protocol.exchange import Hardened
from protocol.names import MASTER_KEY_OCTETS, Kind, Role
from protocol.sealing import Random
from protocol.secret import Secret
from topics.bus import Outbound
from topics.codec import decode, encode
from topics.messages import KeyRequest, KeyResponse, MailboxOk, Waiting, run_of


class Forger:
    """Knows every key of the town, and the requests that were sent."""

    def __init__(self, random: Random, keys: Mapping[str, Secret]) -> None:
        """keys: K_x by key id, as the KMS has them."""
        self._random = random
        self._keys = keys
        self._requests: dict[tuple[str, bytes, str], KeyRequest] = {}
        self._turn = seeded.Random(random(8))

    def sees(self, record: Outbound) -> None:
        """Remember a REQUEST."""
        if record.topic == "ims.kms":
            message = decode(record.value)
            if isinstance(message, KeyRequest):
                self._requests[message.caller, message.call, message.sender.device] = message

    def forge(self, record: Outbound, now: int) -> Outbound | None:
        """A wrong answer in place of this RESPONSE; None when it is none, or of an unknown request."""
        if record.value is None or not record.topic.startswith("ims.ue."):
            return None
        response = decode(record.value)
        if isinstance(response, MailboxOk | Waiting):
            if not _is_answer(response.answer):
                return None
            weaker = msgspec.structs.replace(response, answer=_weaker(response.answer))
            return Outbound(record.topic, record.partition, record.key, encode(weaker), record.headers)
        if not isinstance(response, KeyResponse):
            return None
        request = self._requests.get((response.caller, response.call, response.to))
        key = self._keys.get(request.callee_key) if request else None
        if request is None or key is None:
            return None
        run = run_of(request, request.suite)
        holder = Holder(Role.CALLEE, request.callee_key, key)
        profile = Hardened()
        try:
            token = profile.open_token(holder, run, request.token_b, binds=request.token_a)
        except Refused:
            return None
        right = Grant(
            *run.clear,
            nonce=token.nonce,
            key=Secret(self._random(MASTER_KEY_OCTETS)),
            now=now,
            not_before=now - 120,
            not_after=now + 3600,
            fork=response.fork,
            kind=Kind.PEER,
        )
        wrong = self._turn.choice(
            (
                msgspec.structs.replace(right, nonce=self._random(16)),
                msgspec.structs.replace(right, caller="sip:mallory@ims.example"),
                msgspec.structs.replace(right, not_before=now - 7200, not_after=now - 3600),
            )
        )
        grant_b = profile.seal_grant(holder, run, wrong, token=request.token_b, random=self._random)
        forged = msgspec.structs.replace(response, grant_b=grant_b)
        return Outbound(record.topic, record.partition, record.key, encode(forged), record.headers)


def _is_answer(answer: bytes) -> bool:
    """Whether it is one at all: an outsider's messages are forwarded too."""
    try:
        read_description(answer)
    except BodyMalformed:
        return False
    return True


def _weaker(answer: bytes) -> bytes:
    """The answer with the other SRTP suite."""
    told = read_description(answer)
    other = next(suite for suite in SrtpSuite if suite not in told.srtp_suites)
    return msgspec.structs.replace(told, srtp_suites=(other,)).octets
