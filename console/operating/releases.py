"""`otway releases`: which transcoders have the keys of which calls, by the audit, and how that is ended.

It is what the audit says: when a call ends no record says, so a release is `live` until its keys are over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import msgspec
import typer
from typer import Argument, Option

from console.mistakes import Mistake
from console.operating.administration import Json, operator_settings
from console.operating.audits import all_audits, carried_out
from console.operating.showing import printable, utc
from console.outside import clock, random
from protocol.names import CallId, Identity
from topics.messages import Audit, AuditEvent, RevokeRelease

releases_app = typer.Typer(
    help="Releases: the keys of a call's two legs, given to a transcoder that both sides have permitted.",
    no_args_is_help=True,
)


class ReleaseState(StrEnum):
    """Whether a transcoder can listen in by what was released to it."""

    LIVE = "live"  # if the call goes on
    RENEWED = "renewed"  # another has taken its place, of a later run
    EXPIRED = "expired"
    REVOKED = "revoked"


class KnownRelease(msgspec.Struct, frozen=True, kw_only=True):
    """What was released of one run of a call to one transcoder."""

    caller: str
    callee: str
    call: bytes
    run: int
    transcoder: str
    released_at: int  # the first time; seconds since 1970 UTC
    not_after: int | None  # None: no record says it
    releases: int  # how often: each instance that takes the call over asks anew
    state: ReleaseState

    def told(self) -> dict[str, object]:
        """For a program."""
        until = None if self.not_after is None else utc(self.not_after)
        times = {"released_at": utc(self.released_at), "not_after": until}
        return {**msgspec.structs.asdict(self), "call": self.call.hex(), **times}

    def line(self) -> str:
        """For a terminal."""
        until = "-" if self.not_after is None else utc(self.not_after)
        return (
            f"{self.call.hex()} {self.run:>2}  {self.state:8} {utc(self.released_at)} until {until:20}  "
            f"{self.caller} -> {self.callee} by {self.transcoder}"
            + (f", {self.releases} times" if self.releases > 1 else "")
        )


_Call = tuple[str, bytes]  # ID-A and C


class ReleaseBook:
    """Takes the audit record by record, in any order and however often."""

    def __init__(self) -> None:
        self._told: dict[tuple[_Call, int, str], list[Audit]] = {}  # by call, run and ID-T
        self._revoked: set[tuple[_Call, int | None, str | None]] = set()  # None: any run, or transcoder
        self._withdrawn: set[tuple[_Call, int]] = set()  # runs whose key was destroyed

    def add(self, audit: Audit) -> None:
        """What this record says of releases."""
        if audit.caller is None or audit.call is None:
            return
        about = (audit.caller, audit.call)
        match audit:
            case Audit(event=AuditEvent.RELEASED, run=int(run), transcoder=str(transcoder)):
                self._told.setdefault((about, run, transcoder), []).append(audit)
            case Audit(event=AuditEvent.RELEASE_REVOKED):
                self._revoked.add((about, audit.run, audit.transcoder))
            case Audit(event=AuditEvent.WITHDRAWN, run=int(run)):
                self._withdrawn.add((about, run))
            case _:
                pass

    def releases(self, now: int) -> Iterator[KnownRelease]:
        """The oldest first."""
        found = [self._known(*about, audits, now) for about, audits in self._told.items()]
        yield from sorted(found, key=lambda each: (each.released_at, each.caller, each.call, each.run))

    def _known(self, about: _Call, run: int, transcoder: str, audits: list[Audit], now: int) -> KnownRelease:
        first = min(audits, key=lambda audit: audit.at)
        not_after = max((audit.not_after for audit in audits if audit.not_after is not None), default=None)
        state = ReleaseState.LIVE
        names = {(about, which, who) for which in (run, None) for who in (transcoder, None)}
        if (about, run) in self._withdrawn or names & self._revoked:
            state = ReleaseState.REVOKED
        elif not_after is not None and now > not_after:
            state = ReleaseState.EXPIRED
        elif any(other == about and later > run for other, later, _ in self._told):
            state = ReleaseState.RENEWED
        caller, call = about
        return KnownRelease(
            caller=caller,
            callee=first.callee or "",
            call=call,
            run=run,
            transcoder=transcoder,
            released_at=first.at,
            not_after=not_after,
            releases=len({audit.id for audit in audits}),
            state=state,
        )


@releases_app.command("list")
def list_(
    *,
    every: Annotated[bool, Option("--all", help="Also those that are over or revoked.")] = False,
    as_json: Json = False,
) -> None:
    """Which transcoders can listen in: the call's name and run, since when and until when at the latest, who
    talks, and which transcoder. No keys: those stay inside.

    When a call ends no audit record says: a release of a call that is over is here until its keys are over.

    Examples: `otway releases list`; `otway releases list --all --json`
    """

    async def book() -> ReleaseBook:
        found = ReleaseBook()
        async for audit in all_audits(operator_settings().kafka_settings):
            found.add(audit)
        return found

    known = asyncio.run(book()).releases(clock())
    rows = [each for each in known if every or each.state is ReleaseState.LIVE]
    for row in rows:
        typer.echo(msgspec.json.encode(row.told()) if as_json else row.line())
    if not rows and not as_json:
        typer.echo(
            "none: no transcoder has the keys of a call" + ("" if every else "; --all shows older ones")
        )


@releases_app.command("revoke")
def revoke(
    caller: Annotated[str, Argument(help="Who calls: the identity, as `otway releases list` has it.")],
    call_id: Annotated[str, Argument(metavar="CALL-ID", help="The call's name: 32 hexadecimal digits.")],
    *,
    as_json: Json = False,
) -> None:
    """Take from a transcoder what it was given of a call. It gets nothing of this call again; both ends are
    told within seconds, stop what it hears, and make a new key.

    Exit code 0: it is revoked, now or since long. 1: the KMS has released nothing of such a call, or has not
    answered.

    Example: `otway releases revoke sip:alice@ims.example 6f0c1d2e3f405162738495a6b7c8d9ea`
    """
    order = RevokeRelease(caller=_identity(caller), call=_call(call_id), order=random(16))
    noted = asyncio.run(carried_out(operator_settings().kafka_settings, order))
    if noted.event is not AuditEvent.RELEASE_REVOKED:
        raise Mistake(
            f"nothing was revoked: {noted.code} at the KMS; `otway releases list` has what there is"
        )
    told = {"caller": caller, "call": order.call.hex(), "transcoder": noted.transcoder, "state": "revoked"}
    if as_json:
        typer.echo(msgspec.json.encode(told))
    else:
        typer.echo(
            f"call {order.call.hex()} of {caller}: revoked; {noted.transcoder or 'no transcoder'} is out"
        )


def _identity(text: str) -> str:
    """Raises Mistake."""
    try:
        return msgspec.convert(text, Identity)
    except msgspec.ValidationError:
        raise Mistake(f"{printable(text)!r} is no identity such as sip:alice@ims.example") from None


def _call(text: str) -> bytes:
    """Raises Mistake."""
    try:
        return msgspec.convert(bytes.fromhex(text), CallId)
    except (ValueError, msgspec.ValidationError):
        raise Mistake(f"{printable(text)!r} is no call's name: 32 hexadecimal digits") from None
