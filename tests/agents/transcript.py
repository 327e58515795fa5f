"""A call as a transcript that a person can read: every message, what is sealed in it, and who ends up with K.

Names stand for octets: c1 a call, Na and Nb nonces, K#1 a key, F#1 a fork; times are seconds from the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chaos.simulator import EPOCH, World
from console.calls.ladder import name_of, note_of, sender_of
from protocol.checks import Refused
from protocol.evidence import Holder
from protocol.names import Role, Run
from protocol.profile import HARDENED, Profile
from protocol.transcoding import open_leg_grant, open_transcoder_token
from topics.messages import (
    Audit,
    Bye,
    ByeOk,
    Collected,
    Decline,
    Deposit,
    DepositResponse,
    Fetch,
    FetchResponse,
    Interpose,
    Invite,
    KeyRequest,
    KeyResponse,
    MailboxOk,
    NoLegs,
    Notice,
    OfRun,
    Ok,
    Refusal,
    Release,
    ReleaseResponse,
    Report,
    Settled,
    Stored,
    Waiting,
    run_of,
)

SHOWN = (OfRun, Report, Audit)


@dataclass
class _Names:
    """Short names, in the order in which their octets appear."""

    known: dict[bytes, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def of(self, octets: bytes, kind: str) -> str:
        if octets not in self.known:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.known[octets] = f"{kind}{self.counts[kind]}"
        return self.known[octets]


class Transcript:
    """Writes down what happened in a world from the first INVITE on."""

    def __init__(self, world: World, profile: Profile = HARDENED) -> None:
        self._world = world
        self._profile = profile
        self._names = _Names()
        self._requests: dict[tuple[bytes, str], KeyRequest] = {}
        self._releases: dict[tuple[bytes, int], Release] = {}
        self._answering: dict[bytes | None, str] = {}  # F -> the host of its device

    def lines(self) -> Iterator[str]:
        """One line for each message; the last one says who holds what."""
        for when, record, message in self._world.messages():
            if isinstance(message, KeyRequest):
                self._requests[message.call, message.sender.device] = message
            if isinstance(message, KeyResponse):
                self._answering[message.fork] = host(message.to)
            if not isinstance(message, SHOWN) or getattr(message, "call", None) is None:
                continue
            receiver = record.topic.removeprefix("ims.").removeprefix("ue.")
            if isinstance(message, Report):
                yield f"{when:8.3f}  {host(message.device)} reports {self._report(message)}"
            elif isinstance(message, Audit):
                yield f"{when:8.3f}  kms notes {self._audit(message)}"
            elif isinstance(message, OfRun):
                caller, callee = message.caller[4:].partition("@")[0], message.callee[4:].partition("@")[0]
                sender = sender_of(receiver, message, caller=caller, callee=callee)
                if sender == callee and isinstance(message, Bye | ByeOk):
                    sender = self._answering.get(message.fork, callee)
                said = f"{sender:5} -> {receiver:5} {name_of(message):10}"
                yield f"{when:8.3f}  {said} {self._said(message, EPOCH + int(when))}".rstrip()
        yield self._held()

    def _said(self, message: OfRun, now: int) -> str:
        about = f"{self._names.of(message.call, 'c')} n={message.run}"
        inside = " ".join(self._inside(message, now))
        return f"{about} {inside}"

    def _inside(self, message: OfRun, now: int) -> Iterator[str]:
        match message:
            case Invite():
                yield self._token(Role.CALLER, message, message.token_a, None)
            case KeyRequest():
                yield self._token(Role.CALLER, message, message.token_a, None)
                yield self._token(Role.CALLEE, message, message.token_b, message.token_a)
            case KeyResponse():
                yield self._names.of(message.fork, "F#")
                request = self._requests[message.call, message.to]
                yield self._grant(Role.CALLER, request, message.grant_a, message.fork, now)
                yield self._grant(Role.CALLEE, request, message.grant_b, message.fork, now)
            case Refusal():
                yield f"{message.code} {'sealed' if message.sealed else 'unsealed'}"
            case Decline():
                yield message.reason
            case Ok():
                yield f"{self._names.of(message.fork, 'F#')} grant_a confirm_b"
            case Settled():
                yield "settled"
            case Interpose() | Notice() | NoLegs():
                yield note_of(message)
            case Release():
                self._releases[message.call, message.run] = message
                yield self._token_t(message)
            case ReleaseResponse():
                yield self._grant_t(message, now)
                yield "notice_a notice_b"
            case (
                Deposit()
                | DepositResponse()
                | MailboxOk()
                | Waiting()
                | Fetch()
                | FetchResponse()
                | Stored()
                | Collected()
            ):
                yield note_of(message)
            case _:
                pass

    def _token(self, role: Role, message: Any, sealed: bytes, binds: bytes | None) -> str:
        name = "token_a" if role is Role.CALLER else "token_b"
        key_id = message.caller_key if role is Role.CALLER else message.callee_key
        holder = Holder(role, key_id, self._world.observer.keys[key_id])
        run: Run = run_of(message, message.suite)
        try:
            token = self._profile.open_token(holder, run, sealed, binds=binds)
        except Refused:
            return f"{name}{{does not open}}"
        if self._profile.lab_only:
            return f"{name}{{}}"
        nonce = self._names.of(token.nonce, "Na" if role is Role.CALLER else "Nb")
        return f"{name}{{{nonce} t={token.time - EPOCH}}}"

    def _grant(self, role: Role, request: KeyRequest, sealed: bytes, fork: bytes, now: int) -> str:
        caller, run = role is Role.CALLER, run_of(request, request.suite)
        name = "grant_a" if caller else "grant_b"
        key_id = request.caller_key if caller else request.callee_key
        token, binds = (request.token_a, None) if caller else (request.token_b, request.token_a)
        holder = Holder(role, key_id, self._world.observer.keys[key_id])
        try:
            nonce = self._profile.open_token(holder, run, token, binds=binds).nonce
            grant = self._profile.open_grant(
                holder, run, sealed, token=token, nonce=nonce, fork=fork, now=now
            )
        except Refused:
            return f"{name}{{does not open}}"
        key = self._names.of(grant.key.reveal(), "K#")
        if self._profile.lab_only:
            return f"{name}{{{key}}}"
        life = f"{grant.not_before - EPOCH}..{grant.not_after - EPOCH}"
        return f"{name}{{{self._names.of(nonce, 'N')} {key} {life}}}"

    def _token_t(self, release: Release) -> str:
        run, holder = run_of(release, release.suite), self._transcoder(release)
        token = open_transcoder_token(holder, run, release.fork, release.transcoder, release.token_t)
        return f"token_t{{{self._names.of(token.nonce, 'Nt')} t={token.time - EPOCH}}}"

    def _grant_t(self, response: ReleaseResponse, now: int) -> str:
        release = self._releases[response.call, response.run]
        run, holder = run_of(release, release.suite), self._transcoder(release)
        about = (release.fork, release.transcoder)
        nonce = open_transcoder_token(holder, run, *about, release.token_t).nonce
        sealed, token_t = response.grant_t, release.token_t
        grant = open_leg_grant(holder, run, *about, sealed, token_t=token_t, nonce=nonce, now=now)
        legs = (self._names.of(leg.reveal(), "L#") for leg in (grant.leg_a, grant.leg_b))
        life = f"{grant.not_before - EPOCH}..{grant.not_after - EPOCH}"
        return f"grant_t{{{self._names.of(nonce, 'N')} {' '.join(legs)} {life}}}"

    def _transcoder(self, release: Release) -> Holder:
        key_id = release.transcoder_key
        return Holder(Role.TRANSCODER, key_id, self._world.observer.keys[key_id])

    def _report(self, report: Report) -> str:
        parts = [report.event, self._names.of(report.call or b"", "c"), report.check, report.reason]
        return " ".join(str(part) for part in parts if part)

    def _audit(self, audit: Audit) -> str:
        parts: list[Any] = [audit.event, self._names.of(audit.call or b"", "c"), audit.check, audit.code]
        if audit.fork:
            parts.append(self._names.of(audit.fork, "F#"))
        return " ".join(str(part) for part in parts if part)

    def _held(self) -> str:
        holders: dict[str, list[str]] = {}
        for media in self._world.sessions:
            used = [(opening.leg.root, opening.host) for opening in media.openings]
            used += [(listening.leg.root, listening.host) for listening in media.listenings]
            for root, name in used:
                holders.setdefault(self._names.of(root.reveal(), "K#"), []).append(name)
        if not holders:
            return "nobody holds a K"
        return "; ".join(f"{', '.join(dict.fromkeys(names))} held {key}" for key, names in holders.items())


def host(device: str) -> str:
    user, _, number = device.partition("@")[0].rpartition("-")
    return user if number == "1" else f"{user}-{number}"
