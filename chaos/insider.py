"""A corrupt device of the callee: it has a key of its own, and sees all that passes on the bus.

It tries what a subscriber could gain from: the key of a call that another device of the same user has
answered, by asking for it as if it were a message's (A13); to be taken for the one that the caller chose, by
settling the run itself (A17); to have messages deleted without their key; and to be the one with whom a call
goes on, by answering its renewal before the device that has it does.
"""

from __future__ import annotations

import random as seeded
from dataclasses import dataclass, field

from protocol.deferred import seal_fetch
from protocol.encoding import BodyMalformed, dec_body, digest
from protocol.evidence import FetchGrant, FetchToken, Holder, Token
from protocol.exchange import Hardened
from protocol.names import Role, Run, Suite
from protocol.sealing import Random, SealBroken, down
from protocol.secret import Secret
from protocol.sharding import call_key, shard_of
from storage.users_file import Device
from topics.bus import Outbound
from topics.catalogue import CSCF, KMS, Topic
from topics.codec import decode, encode
from topics.messages import (
    Collected,
    Contact,
    Deposit,
    Fetch,
    FetchResponse,
    Invite,
    KeyRequest,
    KeyResponse,
    OfRun,
    Settled,
    Wire,
    clear,
    run_of,
)


@dataclass(slots=True)
class Insider:
    """Corrupts one device: what it sends is sent by no honest party."""

    device: Device
    seed: int
    random: Random
    key_id: str = ""  # its own, once it has asked the KMS for something
    key: Secret | None = None
    learned: set[Secret] = field(default_factory=set)
    """Keys that the KMS has given it for what it asked corruptly."""
    _asked: dict[bytes, tuple[Holder, Run, bytes]] = field(default_factory=dict)  # by C
    _requests: dict[bytes, KeyRequest] = field(default_factory=dict)  # by C: its own
    _chance: seeded.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = seeded.Random(f"insider {self.seed}")

    def sees(self, record: Outbound, keys: dict[str, Secret]) -> None:
        """A record on the bus. keys: by key id; it uses none but its own."""
        message = decode(record.value)
        match message:
            case KeyRequest() if message.sender.device == self.device.impi:
                self.key_id, self.key = message.callee_key, keys.get(message.callee_key)
                self._requests[message.call] = message
            case FetchResponse() if message.to == self.device.impi and message.call in self._asked:
                self._learn(message)
            case _:
                pass

    def tries(self, record: Outbound, now: int) -> tuple[float, Outbound] | None:
        """Something corrupt about the call that this record is of, and after how many seconds it comes; None
        if there is nothing to try."""
        message = decode(record.value)
        if not isinstance(message, OfRun) or message.callee != self.device.identity or self.key is None:
            return None
        match message:
            case KeyRequest():
                return self._chance.uniform(0.0, 5.0), self._fetch(message, now)
            case KeyResponse() if message.to == self.device.impi and message.call in self._requests:
                return 0.0, self._settle(self._requests[message.call], message.fork)
            case Deposit():
                return self._chance.uniform(0.0, 90.0), self._delete(message)
            case Invite() if message.run and message.to is None:
                return 0.0, self._renew(message, now)
            case _:
                return None

    def _fetch(self, request: KeyRequest, now: int) -> Outbound:
        """FETCH for a call between two ends."""
        assert self.key is not None
        holder = Holder(Role.CALLEE, self.key_id, self.key)
        run = run_of(request, Suite.AES_256_GCM)
        token = FetchToken(*run.clear, self.random(16), now)
        token_f = seal_fetch(holder, run, token, random=self.random)
        self._asked[request.call] = (holder, run, token_f)
        fetch = Fetch(
            caller_key=request.caller_key,
            callee_key=self.key_id,
            suite=run.suite,
            token_f=token_f,
            sender=Contact(self.device.host, self.device.impi),
            **clear(run),
        )
        return _sent(KMS, call_key(run.caller, run.call), fetch)

    def _renew(self, invite: Invite, now: int) -> Outbound:
        """REQUEST for the next run of a call that another device of the same user has."""
        assert self.key is not None
        holder = Holder(Role.CALLEE, self.key_id, self.key)
        run = run_of(invite, invite.suite)
        token = Token(*run.clear, self.random(16), now, (), digest(invite.offer))
        request = KeyRequest(
            caller_key=invite.caller_key,
            callee_key=self.key_id,
            suite=run.suite,
            token_a=invite.token_a,
            token_b=Hardened().seal_token(holder, run, token, binds=invite.token_a, random=self.random),
            sender=Contact(self.device.host, self.device.impi),
            **clear(run),
        )
        return _sent(KMS, call_key(run.caller, run.call), request)

    def _settle(self, request: KeyRequest, fork: bytes) -> Outbound:
        """SETTLED in the caller's name, under the only key that it has, for its own answer."""
        assert self.key is not None
        run = run_of(request, request.suite)
        sealed = Hardened().seal_settled(
            Holder(Role.CALLER, self.key_id, self.key),
            run,
            token_a=request.token_a,
            nonce=self.random(16),
            fork=fork,
            random=self.random,
        )
        settled = Settled(
            caller_key=self._chance.choice((self.key_id, request.caller_key)),
            suite=run.suite,
            sealed=sealed,
            sender=Contact(self.device.host, self.device.impi),
            **clear(run),
        )
        return _sent(KMS, call_key(run.caller, run.call), settled)

    def _delete(self, deposit: Deposit) -> Outbound:
        """COLLECTED without the key."""
        collected = Collected(
            proof=self.random(32),
            sender=Contact(self.device.host, self.device.impi),
            **clear(run_of(deposit, deposit.suite)),
        )
        return _sent(CSCF, deposit.callee, collected)

    def _learn(self, response: FetchResponse) -> None:
        """K, if the KMS has sealed one."""
        holder, run, token_f = self._asked[response.call]
        context = (*run.clear, holder.key_id, digest(token_f))
        try:
            body = down(holder.key, run.suite, Role.CALLEE).unseal("grant-f", context, response.grant_f)
            self.learned.add(dec_body(body, FetchGrant).key)
        except (SealBroken, BodyMalformed):
            return


def _sent(topic: Topic, key: str, message: Wire) -> Outbound:
    return Outbound(topic.name, shard_of(key) % topic.partitions, key.encode(), encode(message))
