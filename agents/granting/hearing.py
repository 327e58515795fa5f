"""A request before the KMS, as far as it has been judged: who asks, for what run, and how he is refused.

Until the requester's own token has opened, a refusal counts against whoever sent the request, and is not
sealed; from then on the request counts against key ids, and a refusal is sealed under the requester's key.
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
from protocol.evidence import Holder
from protocol.names import Owner, Role, Run, Suite
from protocol.profile import Profile
from protocol.sealing import Random
from storage.kms_records import AgreedRun, Agreement, Site, Subscriber
from topics.catalogue import VOICEMAIL
from topics.messages import Audit, AuditEvent, Contact, Refusal, clear

_OWNERS: Final = {Role.CALLER: Owner.UE, Role.CALLEE: Owner.UE, Role.MAILBOX: Owner.MAILBOX}


@dataclass(frozen=True, slots=True)
class KmsSettings:
    """What an operator may choose."""

    suites: frozenset[Suite] = frozenset(Suite)
    """The suites that are allowed; a request under another one is refused as `unsupported`."""
    key_requests_per_s: int = 50
    """Requests a second of one key id, as caller and as callee together (OR-11)."""
    host_requests_per_s: int = 1000
    """Requests a second of one UE host or mailbox that do not open, or come before there is a key (OR-11)."""
    mailbox_requests_per_s: int = 500
    """Deposits a second of one mailbox, which serves many users (OR-11)."""
    deferred_days_max: int = 7
    """The longest that K of a message is stored; 0: no message may be left (OR-14)."""


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
        """While the requester's token is tried: what is refused here counts against the sender."""
        self.rates.admit(sender, self.settings.host_requests_per_s)  # OR-11
        try:
            if self.run.suite not in self.settings.suites:  # OR-01
                raise Refused(Check.OR_01, RefusalCode.UNSUPPORTED, "suite")
            yield
        except Refused:
            self.rates.count(sender)
            raise

    def opened(self, requester: Holder, nonce: bytes) -> None:
        """The requester's token has opened; nonce: of it. Raises Refused(OR-11)."""
        self._requester = requester, nonce
        self.count(requester)

    def count(self, holder: Holder) -> None:
        """One more request in which a token of this key id has opened. Raises Refused(OR-11)."""
        mailbox = holder.role is Role.MAILBOX
        most = self.settings.mailbox_requests_per_s if mailbox else self.settings.key_requests_per_s
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

    def agreed(self, caller: Holder, token_a: bytes, nonce_a: bytes) -> tuple[Agreement, AgreedRun]:
        """What was granted of this call, and of this run with its one token_a. Raises Refused."""
        run = self.run
        if run.n != 0:  # OR-15: renewal is not built yet, and no first run has another number
            raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
        agreement = self.records.get(Agreement.key_for(run.caller, run.call)) or Agreement()
        agreed = next((known for known in agreement.runs if known.n == run.n), None)
        if agreed is None:
            agreed = AgreedRun(
                n=run.n,
                suite=run.suite,
                callee=run.callee,
                caller_key=caller.key_id,
                token_a_hash=digest(token_a),
                nonce_a=nonce_a,
                forks=(),
            )
        if agreed.token_a_hash != digest(token_a):  # OR-10
            raise Refused(Check.OR_10, RefusalCode.REPLAY)
        return agreement, agreed

    def refuse(
        self, refused: Refused, random: Random, *, to: Contact | None, named: Mapping[str, Any]
    ) -> Decision:
        """REFUSAL, and the truth for the audit. to: None for the mailbox of ID-B. named: the key ids of the
        request, as fields of the audit."""
        sealed = None
        if self._requester is not None:
            holder, nonce = self._requester
            sealed = self.profile.seal_refusal(
                holder, self.run, refused.code, token=self.token, nonce=nonce, random=random
            )
        refusal = Refusal(
            code=refused.code, sealed=sealed, to=None if to is None else to.device, **clear(self.run)
        )
        noted = Audit(
            id=digest(enc("refused", *self.run.clear, digest(self.token), refused.check)),
            event=AuditEvent.REFUSED,
            at=self.now,
            check=refused.check,
            code=refused.code,
            **named,
            **clear(self.run),
        )
        send = Send(VOICEMAIL, self.run.callee, refusal) if to is None else to_device(to, refusal)
        return Decision(puts=self.rates.puts(), audit=(noted,), sends=(send,))
