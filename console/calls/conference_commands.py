"""`otway conference`: what is typed, and what is printed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from typer import Argument, Option

from console import logs
from console.calls.conferences import Conferences
from console.calls.switchboard import find
from console.mistakes import Mistake
from console.operating.showing import printable
from console.outside import random
from console.settings import SETTINGS_FILE, Settings, read_settings
from media.wav import read_sound, write_wav
from protocol.names import GroupId, Identity, Owner
from protocol.profile import HARDENED
from storage.users_file import Device, read_directory

conference_app = typer.Typer(
    help="Conferences: up to 64 members, mixed by a focus, each change of members under a new key. A "
    "conference is named by 32 hexadecimal digits, which `create` prints.",
    no_args_is_help=True,
)

Json = Annotated[bool, Option("--json", help="Print the outcome as JSON and nothing else.")]
Group = Annotated[str, Argument(metavar="G", help="Which conference, as `create` has printed it.")]
User = Annotated[
    str, Argument(metavar="USER", help="Who: a name, an identity, an IMPI, or the name of a UE host.")
]
Directory = Annotated[Path | None, Option(help="Who lives where: a users file; OTWAY_DIRECTORY by default.")]
Focus = Annotated[
    str | None, Option(help="The identity of the focus; OTWAY_FOCUS, or the directory's, by default.")
]


@conference_app.command("create")
def create(*, focus: Focus = None, directory: Directory = None, as_json: Json = False) -> None:
    """Begin a conference, with nobody in it, and print its name.

    Examples: `otway conference create`; `G=$(otway conference create)`
    """
    conferences = _conferences(focus, directory)
    group = asyncio.run(conferences.create()).hex()
    typer.echo(msgspec.json.encode({"group": group, "focus": conferences.focus}) if as_json else group)


@conference_app.command("join")
def join(
    users: Annotated[
        list[str],
        Argument(metavar="USER...", help="Who: names, identities, IMPIs, or names of UE hosts."),
    ],
    group: Group,
    *,
    wav: Annotated[
        Path | None, Option(help="A sound file for them to say, up to 10 minutes; else what their hosts say.")
    ] = None,
    focus: Focus = None,
    directory: Directory = None,
    as_json: Json = False,
) -> None:
    """Have users' handsets go into a conference; their UE hosts must run. All that come within a quarter of a
    second come in together.

    Exit code 0: all of them are in.

    Examples: `otway conference join alice $G`; `otway conference join alice bob carol $G --wav hello.wav`
    """
    name, sound = _group(group), read_sound(wav) if wav else None
    conferences, devices = _conferences(focus, directory), _devices(users, directory)
    found = asyncio.run(conferences.join(name, devices, sound))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        for each in found:
            typer.echo(each.line())
    raise typer.Exit(0 if all(each.joined for each in found) else 1)


@conference_app.command("leave")
def leave(
    user: User,
    group: Group,
    *,
    out: Annotated[
        Path | None, Option(help="Keep what the handset has heard, a minute at most, as NAME-heard.wav here.")
    ] = None,
    focus: Focus = None,
    directory: Directory = None,
    as_json: Json = False,
) -> None:
    """Have a user's handset leave. The others get a new key at once.

    Exit code 0: it is out.

    Examples: `otway conference leave bob $G`; `otway conference leave bob $G --out heard`
    """
    name, conferences = _group(group), _conferences(focus, directory)
    [device] = _devices([user], directory)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    left, heard = asyncio.run(conferences.leave(name, device, with_sound=out is not None))
    if out is not None and heard is not None:
        write_wav(out / f"{_name_of(device)}-heard.wav", heard)
    typer.echo(msgspec.json.encode(left) if as_json else left.line())
    if out is not None and heard is None:
        typer.echo(f"{device.impi} has not handed back what it heard", err=True)
    raise typer.Exit(0 if left.left else 1)


@conference_app.command("remove")
def remove(
    user: User, group: Group, *, focus: Focus = None, directory: Directory = None, as_json: Json = False
) -> None:
    """Put a user out, whether the handset agrees or not. Nobody comes back in who was put out.

    Exit code 0: the others have a new key, which the user has not.

    Example: `otway conference remove bob $G`
    """
    name, conferences = _group(group), _conferences(focus, directory)
    standing = asyncio.run(conferences.remove(name, _identity(user, directory)))
    _tell(msgspec.json.encode(standing), standing.lines(), as_json=as_json)


@conference_app.command("end")
def end(group: Group, *, focus: Focus = None, directory: Directory = None, as_json: Json = False) -> None:
    """Put everybody out. The conference cannot be begun again.

    Example: `otway conference end $G`
    """
    name, conferences = _group(group), _conferences(focus, directory)
    asyncio.run(conferences.end(name))
    told = msgspec.json.encode({"group": name.hex(), "focus": conferences.focus, "ended": True})
    _tell(told, [f"conference {name.hex()} has ended"], as_json=as_json)


@conference_app.command("show")
def show(group: Group, *, focus: Focus = None, directory: Directory = None, as_json: Json = False) -> None:
    """Who is in, by the KMS's roster; which epoch it is and until when; who speaks; which process mixes.

    Examples: `otway conference show $G`; `otway conference show $G --json`
    """
    name, conferences = _group(group), _conferences(focus, directory)
    standing = asyncio.run(conferences.show(name))
    _tell(msgspec.json.encode(standing), standing.lines(), as_json=as_json)


def _tell(told: bytes, lines: Sequence[str], *, as_json: bool) -> None:
    for each in [told] if as_json else lines:
        typer.echo(each)


def _settings() -> Settings:
    settings = read_settings(os.environ, SETTINGS_FILE)
    logs.configure(settings.log, HARDENED, quiet=True)
    return settings


def _conferences(focus: str | None, directory: Path | None) -> Conferences:
    """The conferences of the focus that is meant. Raises Mistake, SettingsBroken, UsersBroken."""
    settings = _settings()
    identity = focus or settings.focus
    if not identity:
        path = directory or settings.directory
        there = [device.identity for device in read_directory(path) if device.owner is Owner.FOCUS]
        if len(there) != 1:
            raise Mistake(f"{path} names {len(there)} focuses: set OTWAY_FOCUS, or say --focus sip:NAME@HOST")
        [identity] = there
    try:
        return Conferences(msgspec.convert(identity, Identity), settings, random)
    except msgspec.ValidationError:
        raise Mistake(f"{printable(identity)!r} is no identity such as sip:conference@ims.example") from None


def _devices(users: Sequence[str], directory: Path | None) -> list[Device]:
    """One device for each user, each once. Raises UsersBroken, SettingsBroken."""
    listed = read_directory(directory or _settings().directory)
    return list({device.impi: device for device in (find(listed, user) for user in users)}.values())


def _identity(user: str, directory: Path | None) -> str:
    """Raises UsersBroken, SettingsBroken."""
    [device] = _devices([user], directory)
    return device.identity


def _name_of(device: Device) -> str:
    """For a file: the IMPI without its domain."""
    return device.impi.partition("@")[0]


def _group(text: str) -> bytes:
    """Raises Mistake."""
    try:
        return msgspec.convert(bytes.fromhex(text), GroupId)
    except (ValueError, msgspec.ValidationError):
        told = f"{printable(text)!r} is no conference: 32 hexadecimal digits, as `create` prints them"
        raise Mistake(told) from None
