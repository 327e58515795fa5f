"""Subscribers as an operator writes them down (TOML).

[[user]]
identity = "sip:alice@ims.example"
  [[user.device]]
  impi = "alice-1@ims.example"
  host = "alice"                      # the UE host that serves it
  k = "..."                           # a USIM: K and OPc, 16 octets in hexadecimal
  opc = "..."
  # or a pre-shared key of 32 octets: psk = "...", known to the KMS as psk:<impi>

[[user]]
identity = "sip:voicemail@ims.example"
  [[user.device]]
  impi = "voicemail@ims.example"
  kind = "mailbox"                    # a network function: no UE host serves it, and its key is pre-shared
  psk = "..."                         # kind: mailbox, transcoder or focus
  serves = ["ims.example"]            # a transcoder's, a focus's: whose users it may serve; none: all
  mixes = true                        # a focus's: whether it gets a conference's keys
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.names import PSK_OCTETS, Host, Identity, Impi, Owner
from protocol.secret import Secret

Hex16 = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{32}\Z")]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]


class UsersBroken(Exception):  # noqa: N818
    """The subscribers' file cannot be used; the message says which part and what to do."""


class _Device(msgspec.Struct, forbid_unknown_fields=True):
    impi: Impi
    kind: Owner = Owner.UE
    host: Host | None = None
    k: Hex16 | None = None
    opc: Hex16 | None = None
    psk: Hex32 | None = None
    serves: list[Annotated[str, Meta(pattern=r"^[a-z0-9.-]{1,255}\Z")]] = []
    mixes: bool = True


class _User(msgspec.Struct, forbid_unknown_fields=True):
    identity: Identity
    device: list[_Device]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    user: list[_User]


@dataclass(frozen=True, slots=True)
class Device:
    """One handset: a USIM (k and opc), or a pre-shared key. A network function: a pre-shared key."""

    impi: str
    identity: str
    host: str  # "" for a network function
    k: Secret | None = None
    opc: Secret | None = None
    psk: Secret | None = None
    owner: Owner = Owner.UE
    serves: tuple[str, ...] = ()  # hosts whose users a network function may serve; none: all
    mixes: bool = True  # a focus: it gets the keys of its conferences

    @property
    def psk_id(self) -> str:
        """The KID of its pre-shared key."""
        return f"psk:{self.impi}"


def read_users(path: Path) -> tuple[Device, ...]:
    """The devices of a subscribers' file, each with its keys. Raises UsersBroken."""
    devices = read_directory(path)
    keyless = next((device for device in devices if device.k is None and device.psk is None), None)
    if keyless is not None:
        raise UsersBroken(f"{path}: {keyless.impi} needs either k and opc, or psk")
    return devices


def read_directory(path: Path) -> tuple[Device, ...]:
    """Who lives where: the devices of a subscribers' file, keys or none. Raises UsersBroken."""
    try:
        text = path.read_text()
    except OSError as error:
        raise UsersBroken(f"{path}: {error.strerror}") from None
    try:
        users = msgspec.convert(tomllib.loads(text), _File).user
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise UsersBroken(f"{path}: {error}") from None
    devices = tuple(_devices(path, users))
    impis = [device.impi for device in devices]
    twice = next((impi for impi in impis if impis.count(impi) > 1), None)
    if twice is not None:
        raise UsersBroken(f"{path}: two devices have the private identity {twice}")
    return devices


def ue_hosts(devices: Iterable[Device]) -> list[str]:
    """The hosts that serve these devices, each once."""
    return list(dict.fromkeys(device.host for device in devices if device.owner is Owner.UE))


def _devices(path: Path, users: list[_User]) -> Iterator[Device]:
    for user in users:
        for device in user.device:
            usim = device.k is not None and device.opc is not None and device.psk is None
            shared = device.k is None and device.opc is None and device.psk is not None
            keyless = device.k is None and device.opc is None and device.psk is None
            if not usim and not shared and not keyless:
                raise UsersBroken(f"{path}: {device.impi} needs either k and opc, or psk")
            if device.kind is not Owner.UE and (usim or device.host is not None):
                raise UsersBroken(
                    f"{path}: {device.impi} is a {device.kind}: it has a psk, and no host, k or opc"
                )
            if device.kind is Owner.UE and device.host is None:
                raise UsersBroken(f"{path}: {device.impi} needs a host, the UE host that serves it")
            yield Device(
                impi=device.impi,
                identity=user.identity,
                host=device.host or "",
                k=_secret(device.k),
                opc=_secret(device.opc),
                psk=_secret(device.psk),
                owner=device.kind,
                serves=tuple(device.serves),
                mixes=device.mixes,
            )


def write_users(devices: tuple[Device, ...]) -> str:
    """The subscribers' file of these devices, secrets included: it belongs into a file of mode 0600."""
    lines: list[str] = []
    for identity in dict.fromkeys(device.identity for device in devices):
        lines += ["[[user]]", f'identity = "{identity}"']
        for device in devices:
            if device.identity != identity:
                continue
            where = f'host = "{device.host}"' if device.owner is Owner.UE else f'kind = "{device.owner}"'
            lines += ["  [[user.device]]", f'  impi = "{device.impi}"', f"  {where}"]
            secrets = {"k": device.k, "opc": device.opc, "psk": device.psk}
            lines += [f'  {name} = "{key.reveal().hex()}"' for name, key in secrets.items() if key]
            if device.serves:
                lines.append("  serves = [" + ", ".join(f'"{host}"' for host in device.serves) + "]")
            if not device.mixes:
                lines.append("  mixes = false")
        lines.append("")
    return "\n".join(lines)


def write_directory(devices: tuple[Device, ...]) -> str:
    """The same without keys and network functions: who lives where, for whoever makes calls."""
    return write_users(
        tuple(
            Device(device.impi, device.identity, device.host)
            for device in devices
            if device.owner is Owner.UE
        )
    )


def draw_device(
    impi: str, identity: str, host: str, random: Callable[[int], bytes], *, shared: bool = False
) -> Device:
    """A device with fresh keys: a USIM, or a pre-shared key."""
    if shared:
        return Device(impi, identity, host, psk=Secret(random(PSK_OCTETS)))
    return Device(impi, identity, host, k=Secret(random(16)), opc=Secret(random(16)))


def _secret(text: str | None) -> Secret | None:
    return None if text is None else Secret(bytes.fromhex(text))
