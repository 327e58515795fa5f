"""The commands that need the media libraries: `otway demo`, `call`, `mailbox`, `conference`, and of
`otway run` the agents that speak, hear or mix."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from typer import Argument, Option

from console import logs
from console.calls.calling import Calling, CallOutcome, CallWish
from console.calls.conference_commands import conference_app
from console.calls.mailboxes import Mailboxes
from console.calls.switchboard import find
from console.demos import demo
from console.hosting.bridges import CONFERENCE, TRANSCODER
from console.hosting.running import Lab, add_function, served, settings_to_run
from console.hosting.ue_host import run_ue_host
from console.mistakes import Mistake
from console.outside import clock, random
from console.settings import SETTINGS_FILE, read_settings
from media.likeness import likeness
from media.pcm import SAMPLE_HZ
from media.samples import callee_sample, caller_sample, tone
from media.wav import SoundUnreadable, read_sound, write_wav
from protocol.profile import HARDENED
from storage.handset_memory import HandsetMemoryBroken
from storage.users_file import Device, UsersBroken, read_directory, read_users

MISTAKES: Final = (HandsetMemoryBroken, SoundUnreadable)

Json = Annotated[bool, Option("--json", help="Print the outcome as JSON and nothing else.")]
Wav = Annotated[Path | None, Option(help="A sound file to say, up to 10 minutes.")]
Users = Annotated[Path, Option(help="The users file, for the handsets' keys.")]


def add_to(app: typer.Typer, run_app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(demo)
    app.command()(call)
    app.command()(mailbox)
    app.add_typer(conference_app, name="conference")
    run_app.command("ue")(ue)
    add_function(TRANSCODER, "A transcoder, between ends without a common codec.")
    add_function(CONFERENCE, "The focus, which mixes conferences.")


def ue(
    *,
    host: Annotated[str, Option(help="The name of the UE host.")],
    users: Users = Path("users.toml"),
    wav: Wav = None,
    hertz: Annotated[float, Option(help="Say a tone of so many hertz instead.")] = 0.0,
    heard: Annotated[Path | None, Option(help="Keep what is heard in this directory.")] = None,
    memory: Annotated[
        Path | None, Option(help="A file for which messages were collected: not shown as new again.")
    ] = None,
    answer_after: Annotated[int, Option(min=0, help="Seconds of ringing.")] = 0,
    decline: Annotated[bool, Option("--decline", help="Decline every call.")] = False,
    lab: Lab = False,
) -> None:
    """The handsets of one UE host, with real media."""
    settings, profile = settings_to_run(lab=lab)
    devices = tuple(device for device in read_users(users) if host and device.host == host)
    if not devices:
        raise UsersBroken(f"{users}: no device on the UE host {host!r}; choose one with --host")
    _make(heard)
    sound = read_sound(wav) if wav else tone(hertz, 600.0) if hertz else callee_sample()
    served(
        run_ue_host(
            host,
            devices,
            settings,
            profile,
            sound=sound,
            heard=heard,
            memory=memory,
            answer_after_s=None if decline else answer_after,
            clock=clock,
            random=random,
        )
    )


def call(
    caller: Annotated[str, Argument(help="Who calls: a name, an identity or an IMPI of the directory.")],
    callee: Annotated[str, Argument(help="Who is called.")],
    *,
    directory: Annotated[
        Path | None, Option(help="Who lives where: a users file; OTWAY_DIRECTORY by default.")
    ] = None,
    wav: Wav = None,
    seconds: Annotated[float | None, Option(min=0.0, help="How long to talk; as long as the sound.")] = None,
    out: Annotated[
        Path | None, Option(help="Keep what each side heard, ladder.txt and call.json here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A call between UE hosts on Kafka, each an `otway run ue` or a container of the cluster.

    All devices of the callee ring. When none answers, the sound is left as a message in the callee's mailbox.

    Exit code 0: the call was up and both ends confirmed it, or a message was left.
    """
    _make(out)
    settings = read_settings(os.environ, SETTINGS_FILE)
    logs.configure(settings.log, HARDENED, quiet=True)
    devices = read_directory(directory or settings.directory)
    said = read_sound(wav) if wav else caller_sample()
    called = find(devices, callee).identity
    wish = CallWish(
        caller=find(devices, caller),
        callees=tuple(device for device in devices if device.identity == called),
        sound=said,
        seconds=said.size / SAMPLE_HZ if seconds is None else seconds,
    )
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if not as_json:
            typer.echo(line)

    calling = Calling(wish, settings, random=random, show=show)
    outcome = asyncio.run(calling.run())
    for line in _account(outcome):
        show(line)
    for impi, heard in calling.heard.items():
        callers = impi == wish.caller.impi
        if callers and outcome.answered_by is None:
            continue  # it has heard a mailbox's tone
        alike = likeness(heard, callee_sample() if callers else said)
        sample = "the built-in sample" if callers else f"what {caller} said"
        show(f"what {impi} heard is {alike:.2f} like {sample}")
        if out is not None:
            write_wav(out / f"{_file_name(devices, impi)}-heard.wav", heard)
    if out is not None:
        (out / "ladder.txt").write_text("\n".join(lines) + "\n")
        (out / "call.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome)) + b"\n")
    if as_json:
        typer.echo(msgspec.json.encode(outcome))
    raise typer.Exit(0 if outcome.good else 1)


class MailboxAction(StrEnum):
    """What may be done with a mailbox."""

    LIST = "list"
    PLAY = "play"
    DELETE = "delete"


def mailbox(
    user: Annotated[str, Argument(help="Whose: a name, an identity, an IMPI, or the name of a UE host.")],
    action: Annotated[MailboxAction, Argument(help="What to do.")] = MailboxAction.LIST,
    message: Annotated[
        str | None, Argument(help="Which message: the beginning of its name. To play, the oldest if none.")
    ] = None,
    *,
    directory: Annotated[
        Path | None, Option(help="Who lives where: a users file; OTWAY_DIRECTORY by default.")
    ] = None,
    keep: Annotated[bool, Option("--keep", help="Play, and leave it in the mailbox.")] = False,
    out: Annotated[Path | None, Option(help="Keep what was heard as voicemail-heard.wav here.")] = None,
    as_json: Json = False,
) -> None:
    """Messages in a user's mailbox, by way of the UE host of one of her devices, which must be running.

    list: messages for the user, and those that the device has left for others. play: the UE host fetches the
    key and the packets, plays them, and has a message deleted that was whole. delete: without hearing it.

    Exit code 0: it was listed, heard or deleted.
    """
    _make(out)
    settings = read_settings(os.environ, SETTINGS_FILE)
    logs.configure(settings.log, HARDENED, quiet=True)
    device = find(read_directory(directory or settings.directory), user)
    mailboxes = Mailboxes(device, settings, random)
    match action:
        case MailboxAction.LIST:
            listed = asyncio.run(mailboxes.listed())
            if as_json:
                typer.echo(msgspec.json.encode(listed))
            else:
                for each in listed:
                    typer.echo(each.line())
                typer.echo(f"{len(listed)} message{'' if len(listed) == 1 else 's'}")
            return
        case MailboxAction.PLAY:
            played, sound = asyncio.run(mailboxes.play(message, keep=keep))
            if out is not None and sound is not None:
                write_wav(out / "voicemail-heard.wav", sound)
        case MailboxAction.DELETE:
            if message is None:
                raise Mistake("say which message is to be deleted: `otway mailbox USER list` names them")
            played = asyncio.run(mailboxes.delete(message))
    typer.echo(msgspec.json.encode(played) if as_json else played.line())
    raise typer.Exit(1 if played.problem else 0)


def _account(outcome: CallOutcome) -> Iterator[str]:
    """How it went, in sentences."""
    for identity, media in outcome.statistics.items():
        yield (
            f"{identity}: {media.sent} packets sent, {media.received} received, {media.lost} lost, "
            f"{media.refused} refused, jitter {media.jitter_ms:.1f} ms"
        )
    if outcome.transcoder is not None:
        yield f"{outcome.transcoder} has listened in, since the two ends share no codec"
    if outcome.kept is not None:
        yield f"message {outcome.call} is kept: {outcome.kept} packets"
    elif outcome.answered_by is None:
        yield "the mailbox has not confirmed that it has the message"
    yield f"call {outcome.call[:4]} came up after {outcome.set_up_ms:.0f} ms and ended: {outcome.ended}"


def _file_name(devices: Sequence[Device], impi: str) -> str:
    """The device's host; its IMPI where the host has more than one device."""
    host = next(device.host for device in devices if device.impi == impi)
    return host if sum(device.host == host for device in devices) == 1 else impi


def _make(directory: Path | None) -> None:
    """A directory for what is kept, before anything is worth keeping. Raises OSError."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
