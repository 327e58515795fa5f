"""A request before the KMS, as far as it has been judged: who asks, for what run, and how he is refused.

The requester's own token is tried first. Where it does not open, the refusal counts against whoever the
request says that it comes from, and is not sealed; from then on the request counts against key ids, and a
refusal is sealed under the requester's key. So junk in somebody's name delays nothing that he has sealed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from agents.decision import Decision, Records, Send, to_device
from agents.granting.rates import Rates
from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc
from protocol.evidence import Holder, Token
from protocol.limits import LIFE_S
from protocol.names import Owner, Role, Run, Suite
from protocol.profile import Profile
from protocol.sealing import Random, down_key
from protocol.sharding import call_key
from storage.kms_records import AgreedRun, Agreement, Site, Subscriber
from topics.catalogue import VOICEMAIL, Topic
from topics.messages import Audit, AuditEvent, Contact, Refusal, clear

_OWNERS: Final = {
    Role.CALLER: Owner.UE,
    Role.CALLEE: Owner.UE,
    Role.MEMBER: Owner.UE,
    Role.MAILBOX: Owner.MAILBOX,
    Role.FOCUS: Owner.FOCUS,
    Role.TRANSCODER: Owner.TRANSCODER,
}
_OF_MANY: Final = frozenset({Role.MAILBOX, Role.FOCUS, Role.TRANSCODER})  # they ask for many users
_RUNS_MAX: Final = 128  # of one call that are remembered: renewals that were granted and came to nothing


@dataclass(frozen=True, slots=True)
class KmsSettings:
    """What an operator may choose."""

    suites: frozenset[Suite] = frozenset(Suite)
    """The suites that are allowed; a request under another one is refused as `unsupported`."""
    key_requests_per_s: int = 50
    """Requests a second of one key id, as caller and as callee together (OR-11)."""
    host_requests_per_s: int = 1000
    """Requests a second of one UE host or network function that do not open, or come before there is a key
    (OR-11)."""
    mailbox_requests_per_s: int = 500
    """Requests a second of one mailbox, transcoder or focus, which serves many users (OR-11)."""
    deferred_days_max: int = 7
    """The longest that K of a message is stored; 0: no message may be left (OR-14)."""
    removed_may_return: bool = False
    """Whether who was put out of a conference may join it again (OR-14)."""
    life_s: int = LIFE_S
    """How long K of a call lives without renewal; at most LIFE_S."""


class Hearing:
    """One request, from its first check to its refusal. token: the requester's own, as it came."""

    def __init__(
        self, profile: Profile, settings: KmsSettings, run: Run, token: bytes, records: Records, now: int
    ) -> None:
        self.profile: Final = profile
        self.settings: Final = settings
        self.run: Final = run
        self.token: Final = token
        self.records: Final = records
        self.now: Final = now
        self.rates: Final = Rates(records, now)
        self._requester: tuple[Holder, bytes] | None = None  # with the nonce of its token

    @contextmanager
    def opening(self, sender: str) -> Iterator[None]:
        """While the requester's token is tried: what is refused here counts against the sender, who is only
        what the message says. Raises Refused(OR-11) in place of what was wrong, if it is too often."""
        try:
            if self.run.suite not in self.settings.suites:  # OR-01
                raise Refused(Check.OR_01, RefusalCode.UNSUPPORTED, "suite")
            yield
        except Refused:
            self.rates.admit(sender, self.settings.host_requests_per_s)  # OR-11
            self.rates.count(sender)
            raise

    def opened(self, requester: Holder, nonce: bytes) -> None:
        """The requester's token has opened; nonce: of it. Raises Refused(OR-11)."""
        self._requester = requester, nonce
        self.count(requester)

    def count(self, holder: Holder) -> None:
        """One more request in which a token of this key id has opened. Raises Refused(OR-11)."""
        of_many = holder.role in _OF_MANY
        most = self.settings.mailbox_requests_per_s if of_many else self.settings.key_requests_per_s
        self.rates.admit(f"kid {holder.key_id}", most)  # OR-11
        self.rates.count(f"kid {holder.key_id}")

    def holder(self, key_id: str, identity: str, role: Role) -> tuple[Holder, Subscriber]:
        """The holder of a KID that may act as the identity, in this role, now. Raises Refused."""
        subscriber = self.records.get(Subscriber.key_for(key_id))
        if subscriber is None or subscriber.revoked:  # OR-02
            raise Refused(Check.OR_02)
        if not subscriber.not_before <= self.now <= subscriber.not_after:  # OR-02
            raise Refused(Check.OR_02, RefusalCode.EXPIRED_KEY)
        if identity not in subscriber.identities or subscriber.owner is not _OWNERS[role]:  # OR-03
            raise Refused(Check.OR_03, RefusalCode.NOT_AUTHORISED)
        return Holder(role, key_id, subscriber.key), subscriber

    def site(self, *times: int) -> Site:
        """What this KMS is, if it was there at the times of these tokens. Raises Refused(OR-10)."""
        site = self.records.get(Site.key())
        if site is None or (min(times) < site.founded and not self.profile.lab_only):  # OR-10
            raise Refused(Check.OR_10, RefusalCode.STALE)
        return site

    def agreed(
        self,
        caller: Holder,
        sealed: bytes,
        token_a: Token,
        *,
        devices: tuple[Subscriber, Subscriber | None],
    ) -> tuple[Agreement, AgreedRun]:
        """What was granted of this call, and of this run with its one token_a, `sealed` as it came. devices:
        the caller's, and the one that answers; None: a mailbox. Raises Refused."""
        run = self.run
        agreement = self.records.get(Agreement.key_for(run.caller, run.call)) or Agreement()
        agreed = next((known for known in agreement.runs if known.n == run.n), None)
        if run.n != 0 or (agreed is None and agreement.runs):
            self._renews(agreement, agreed, devices)
        if agreed is None:
            agreed = AgreedRun(
                n=run.n,
                suite=run.suite,
                callee=run.callee,
                caller_key=caller.key_id,
                token_a_hash=digest(sealed),
                nonce_a=token_a.nonce,
                forks=(),
                caller_impi=devices[0].impi,
                notify_a=down_key(caller.key, run.suite, Role.CALLER),
                permits_a=token_a.permits,
            )
        if agreed.token_a_hash != digest(sealed):  # OR-10
            raise Refused(Check.OR_10, RefusalCode.REPLAY)
        return agreement, agreed

    def _renews(
        self,
        agreement: Agreement,
        agreed: AgreedRun | None,
        devices: tuple[Subscriber, Subscriber | None],
    ) -> None:
        """A run with n > 0 goes on from the greatest one that was served, between the same two devices; one
        that was served itself is a repeat. Raises Refused(OR-15)."""
        caller, callee = devices
        before = agreed or max(agreement.runs, key=lambda known: known.n, default=None)
        if before is None or callee is None:  # OR-15: no call has begun, or this is none
            raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
        if agreed is None and self.run.n < before.n:  # OR-15: skipped, or forgotten
            raise Refused(Check.OR_15, RefusalCode.REPLAY)
        if before.settled is None:  # OR-15: SETTLED may be on its way
            raise Refused(Check.OR_15, RefusalCode.BUSY)
        winner = next((fork for fork in before.forks if fork.name == before.settled), None)
        ends = (before.callee, before.caller_impi, winner and winner.impi)
        if winner is None or ends != (self.run.callee, caller.impi, callee.impi):  # OR-15: other devices
            raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
        if winner.key is None or self.now > winner.not_after:  # OR-15
            raise Refused(Check.OR_15, RefusalCode.EXPIRED)
        if agreed is None and len(agreement.runs) >= _RUNS_MAX:  # OR-11
            raise Refused(Check.OR_11, RefusalCode.TOO_MANY)

    def refuse(
        self, refused: Refused, random: Random, *, to: Contact | Topic, named: Mapping[str, Any]
    ) -> Decision:
        """REFUSAL, and the truth for the audit. to: a device, or the inbox of the network function that
        asked. named: the key ids of the request, as fields of the audit."""
        sealed = None
        if self._requester is not None:
            holder, nonce = self._requester
            sealed = self.profile.seal_refusal(
                holder, self.run, refused.code, token=self.token, nonce=nonce, random=random
            )
        device = to.device if isinstance(to, Contact) else None
        refusal = Refusal(code=refused.code, sealed=sealed, to=device, **clear(self.run))
        noted = Audit(
            id=digest(enc("refused", *self.run.clear, digest(self.token), refused.check)),
            event=AuditEvent.REFUSED,
            at=self.now,
            check=refused.check,
            code=refused.code,
            **named,
            **clear(self.run),
        )
        return Decision(puts=self.rates.puts(), audit=(noted,), sends=(self._send(to, refusal),))

    def _send(self, to: Contact | Topic, refusal: Refusal) -> Send:
        if isinstance(to, Contact):
            return to_device(to, refusal)
        key = self.run.callee if to == VOICEMAIL else call_key(self.run.caller, self.run.call)
        return Send(to, key, refusal)
