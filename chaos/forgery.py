"""A confused KMS: its answers are sealed under the right keys, for the right token, and wrong inside.

What it gets wrong is one thing at a time: another run's nonce (OR-21), another peer (OR-22), a lifetime that
has passed (OR-23). A handset that skips the check takes a key that nobody else has. So does a member of a
conference, which finds such a grant in what the focus sends it. A mailbox is confused as well: it tells
another answer than the one that the KMS has sealed (OR-24).
"""

from __future__ import annotations

import random as seeded
from collections.abc import Mapping

import msgspec

from protocol.checks import Refused
from protocol.conference import open_member_token, seal_epoch_grant
from protocol.description import BodyMalformed, SrtpSuite, read_description
from protocol.encoding import digest
from protocol.evidence import EpochGrant, Grant, Holder
from protocol.exchange import Hardened
from protocol.names import MASTER_KEY_OCTETS, Kind, Role, Run
from protocol.sealing import Random, down_key
from protocol.secret import Secret
from topics.bus import Outbound
from topics.catalogue import CONFERENCE, KMS
from topics.codec import decode, encode
from topics.messages import Join, Joined, KeyRequest, KeyResponse, MailboxOk, Rekey, Waiting, run_of


class Forger:
    """Knows every key of the town, and the requests that were sent."""

    def __init__(self, random: Random, keys: Mapping[str, Secret]) -> None:
        """keys: K_x by key id, as the KMS has them."""
        self._random = random
        self._keys = keys
        self._requests: dict[tuple[str, bytes, str], KeyRequest] = {}
        self._joins: dict[tuple[bytes, bytes], Join] = {}  # by G and C
        self._turn = seeded.Random(random(8))

    def sees(self, record: Outbound) -> None:
        """Remember a REQUEST, or a JOIN."""
        if record.topic not in {KMS.name, CONFERENCE.name}:
            return
        message = decode(record.value)
        if isinstance(message, KeyRequest):
            self._requests[message.caller, message.call, message.sender.device] = message
        elif isinstance(message, Join):
            self._joins[message.group, message.call] = message

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
        if isinstance(response, Joined | Rekey):
            return self._forge_epoch(record, response, now)
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

    def _forge_epoch(self, record: Outbound, message: Joined | Rekey, now: int) -> Outbound | None:
        """The same with a wrong grant: of another join, for others, or of a time that has passed."""
        asked = self._joins.get((message.group, message.call))
        key = self._keys.get(asked.member_key) if asked else None
        if asked is None or key is None:
            return None
        run = Run(call=asked.call, n=asked.run, caller=asked.member, callee=asked.focus, suite=asked.suite)
        holder = Holder(Role.MEMBER, asked.member_key, key)
        try:
            token = open_member_token(holder, run, asked.group, asked.token_g)
        except Refused:
            return None
        right = EpochGrant(
            group=message.group,
            epoch=message.epoch,
            nonce=token.nonce,
            key=Secret(self._random(MASTER_KEY_OCTETS)),
            now=now,
            not_before=now - 120,
            not_after=now + 300,
            roster=(asked.focus, asked.member),
        )
        wrong = self._turn.choice(
            (
                msgspec.structs.replace(right, nonce=self._random(16)),
                msgspec.structs.replace(right, roster=(asked.focus,)),
                msgspec.structs.replace(right, not_before=now - 7200, not_after=now - 3600),
            )
        )
        grant = seal_epoch_grant(
            down_key(key, asked.suite, Role.MEMBER),
            asked.suite,
            wrong,
            focus=asked.focus,
            member=asked.member,
            key_id=asked.member_key,
            token_hash=digest(asked.token_g),
            random=self._random,
        )
        forged = msgspec.structs.replace(message, grant=grant)
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
