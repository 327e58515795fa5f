"""Every message on the bus, as a frozen struct: the union `Message` is the whole language."""

from __future__ import annotations

from topics.messages.bootstrapping import (
    Attach,
    Attached,
    AttachRefusal,
    BootstrapAnswer,
    BootstrapChallenge,
    BootstrapDone,
    BootstrapRefusal,
    BootstrapRequest,
    Register,
    Registered,
    ZnRequest,
    ZnResponse,
)
from topics.messages.calls import (
    Ack,
    Bye,
    ByeOk,
    Cancel,
    Cancelled,
    Decline,
    DeclineReason,
    Invite,
    KeyRequest,
    KeyResponse,
    Ok,
    Refusal,
    Ringing,
    Settled,
    SettledOk,
    Trying,
)
from topics.messages.conferences import (
    AbsentChange,
    Change,
    ConferenceEvent,
    ConferenceReport,
    CreateConference,
    EndConference,
    GroupGrant,
    GroupHint,
    GroupRefusal,
    GroupRequest,
    GroupResponse,
    InUse,
    Join,
    JoinChange,
    Joined,
    JoinRefused,
    Leave,
    LeaveChange,
    LeaveOk,
    OfGroup,
    PutOut,
    RefreshChange,
    Rekey,
    RemoveChange,
    RemoveMember,
    RosterSealed,
    ShowConference,
    WithdrawMember,
    named_group,
)
from topics.messages.deferred import (
    Collected,
    CollectedOk,
    Deposit,
    DepositResponse,
    Fetch,
    FetchResponse,
    Mailbox,
    MailboxOk,
    MailboxRefusal,
    MailboxSays,
    Present,
    Retrieve,
    Stored,
    Waiting,
)
from topics.messages.form import (
    WIRE_NAMES,
    CodecName,
    Contact,
    DescriptionOctets,
    HexDigest,
    OfRun,
    Sealed,
    Text,
    Wire,
    clear,
    named,
    run_of,
)
from topics.messages.handsets import (
    DeleteMessage,
    Dial,
    HangUp,
    JoinConference,
    LeaveConference,
    ListMessages,
    PlayMessage,
    Report,
    ReportEvent,
    Sound,
    SoundUse,
)
from topics.messages.operators import Audit, AuditEvent, Revoke, RevokeRelease, Status
from topics.messages.transcoding import (
    Interpose,
    LegsOver,
    NoLegs,
    Notice,
    Release,
    ReleaseResponse,
    Withdraw,
)

Message = (
    BootstrapRequest
    | BootstrapChallenge
    | BootstrapAnswer
    | BootstrapDone
    | BootstrapRefusal
    | Attach
    | ZnRequest
    | ZnResponse
    | Attached
    | AttachRefusal
    | Register
    | Registered
    | Invite
    | Trying
    | Ringing
    | KeyRequest
    | KeyResponse
    | Refusal
    | Ok
    | Ack
    | Settled
    | SettledOk
    | Decline
    | Cancel
    | Cancelled
    | Bye
    | ByeOk
    | Deposit
    | DepositResponse
    | MailboxOk
    | Present
    | Waiting
    | Mailbox
    | MailboxSays
    | Fetch
    | FetchResponse
    | Retrieve
    | Stored
    | Collected
    | CollectedOk
    | MailboxRefusal
    | Interpose
    | Release
    | ReleaseResponse
    | Notice
    | NoLegs
    | LegsOver
    | Withdraw
    | Join
    | Joined
    | JoinRefused
    | Rekey
    | InUse
    | Leave
    | LeaveOk
    | PutOut
    | GroupRequest
    | GroupResponse
    | GroupGrant
    | GroupRefusal
    | GroupHint
    | WithdrawMember
    | CreateConference
    | RemoveMember
    | EndConference
    | ShowConference
    | ConferenceReport
    | Dial
    | ListMessages
    | PlayMessage
    | DeleteMessage
    | JoinConference
    | LeaveConference
    | HangUp
    | Sound
    | Revoke
    | RevokeRelease
    | Status
    | Report
    | Audit
)

__all__ = [
    "WIRE_NAMES",
    "AbsentChange",
    "Ack",
    "Attach",
    "AttachRefusal",
    "Attached",
    "Audit",
    "AuditEvent",
    "BootstrapAnswer",
    "BootstrapChallenge",
    "BootstrapDone",
    "BootstrapRefusal",
    "BootstrapRequest",
    "Bye",
    "ByeOk",
    "Cancel",
    "Cancelled",
    "Change",
    "CodecName",
    "Collected",
    "CollectedOk",
    "ConferenceEvent",
    "ConferenceReport",
    "Contact",
    "CreateConference",
    "Decline",
    "DeclineReason",
    "DeleteMessage",
    "Deposit",
    "DepositResponse",
    "DescriptionOctets",
    "Dial",
    "EndConference",
    "Fetch",
    "FetchResponse",
    "GroupGrant",
    "GroupHint",
    "GroupRefusal",
    "GroupRequest",
    "GroupResponse",
    "HangUp",
    "HexDigest",
    "InUse",
    "Interpose",
    "Invite",
    "Join",
    "JoinChange",
    "JoinConference",
    "JoinRefused",
    "Joined",
    "KeyRequest",
    "KeyResponse",
    "Leave",
    "LeaveChange",
    "LeaveConference",
    "LeaveOk",
    "LegsOver",
    "ListMessages",
    "Mailbox",
    "MailboxOk",
    "MailboxRefusal",
    "MailboxSays",
    "Message",
    "NoLegs",
    "Notice",
    "OfGroup",
    "OfRun",
    "Ok",
    "PlayMessage",
    "Present",
    "PutOut",
    "RefreshChange",
    "Refusal",
    "Register",
    "Registered",
    "Rekey",
    "Release",
    "ReleaseResponse",
    "RemoveChange",
    "RemoveMember",
    "Report",
    "ReportEvent",
    "Retrieve",
    "Revoke",
    "RevokeRelease",
    "Ringing",
    "RosterSealed",
    "Sealed",
    "Settled",
    "SettledOk",
    "ShowConference",
    "Sound",
    "SoundUse",
    "Status",
    "Stored",
    "Text",
    "Trying",
    "Waiting",
    "Wire",
    "Withdraw",
    "WithdrawMember",
    "ZnRequest",
    "ZnResponse",
    "clear",
    "named",
    "named_group",
    "run_of",
]
