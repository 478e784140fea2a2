"""Every word the actors say, grouped by who hears it: one closed union per mailbox. This is the architecture.

Times are seconds of the house's clock (monotonic); a message that needs one carries it, actors have no clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.engine.commands import Result
from runtime.types import (
    CancelCause,
    FinishReason,
    HitType,
    KvHandle,
    ModelFacts,
    PressureLevel,
    RejectReason,
    RequestId,
    Sampling,
    SequenceId,
    TokenOutput,
)

if TYPE_CHECKING:
    from actors.replies import ReplySink

# --- what is passed around -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants: one sequence of tokens after one prompt. An HTTP call with n=2 makes two."""

    request_id: RequestId
    prompt_ids: tuple[int, ...]
    """At least one id, all within the vocabulary."""
    sampling: Sampling
    arrived_at: float
    deadline: float
    """When it must have ended, waiting included."""
    sink: "ReplySink"
    report_every: int = 1
    """Send tokens on once so many are together; the last ones are always sent."""
    score_prompt: int | None = None
    """Say PromptScored before the first token, with so many of the likeliest ids in each place; None: do not."""

    @property
    def to_score(self) -> bool:
        """Whether the scores are asked for and the client does not have them from an earlier life."""
        return self.score_prompt is not None and not self.sink.scored


@dataclass(frozen=True, slots=True)
class Sequence:
    """One run of a request in one life of the engine room, on its way through the workers."""

    request: Request
    sequence_id: SequenceId
    history: tuple[int, ...]
    """Prompt ids, then the output ids delivered before an engine restart."""
    cached_tokens: int
    """How many ids of `history` the prefix cache holds, at most all but the last."""
    hit_type: HitType
    kv: KvHandle | None
    """Where the cached ones lie; None on a miss."""


@dataclass(frozen=True, slots=True)
class StoredKv:
    """A KV cache that the engine keeps: its handle, and the ids it holds."""

    handle: KvHandle
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost, in tokens."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


# --- heard by more than one ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cancel:
    """End this request early. Follows its sequence: RequestAdmitter, Scheduler, PrefillWorker, DecodeWorker;
    whoever owns it ends it with Cancelled, whoever does not know it passes it on or ignores it."""

    request_id: RequestId
    cause: CancelCause


@dataclass(frozen=True, slots=True)
class EngineReplied:
    """The engine's result for a command this actor submitted."""

    result: Result
    at: float
    """When the engine was done."""


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """The machine's memory pressure crossed a threshold, up or down."""

    level: PressureLevel


@dataclass(frozen=True, slots=True)
class Tick:
    """Time goes by."""

    now: float


# --- heard by RequestAdmitter --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admit:
    """Requests of one HTTP call ask to come in: all of them or none."""

    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """Let nobody in any more; those inside may finish."""

    emptied: Callable[[], None]
    """Called once everybody is out."""


@dataclass(frozen=True, slots=True)
class RequestStaged:
    """The request left the line: from here on an engine death may be its doing."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class RequestClosed:
    """The request had its last word and everything it held is free."""

    request_id: RequestId
    usage: Usage


@dataclass(frozen=True, slots=True)
class EngineRoomOpened:
    """The engine is loaded and its actors stand ready, for the first time or again."""

    epoch: int
    facts: ModelFacts


@dataclass(frozen=True, slots=True)
class EngineRoomClosed:
    """The engine or one of its actors died; nothing of what they held is left."""

    cause: str


@dataclass(frozen=True, slots=True)
class HouseClosing:
    """The house goes down: whoever is still inside gets a last word now."""

    cause: str


AdmitterWord = (
    Admit
    | Cancel
    | Drain
    | RequestStaged
    | RequestClosed
    | EngineRoomOpened
    | EngineRoomClosed
    | HouseClosing
    | PressureChanged
    | Tick
)

# --- heard by Scheduler --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Put a request in line. One meant for an earlier life of the engine room is ignored."""

    epoch: int
    request: Request
    output_ids: tuple[int, ...]
    """Output already delivered in earlier lives: the sequence goes on behind it."""
    suspect: bool = False
    """It was on stage, and had got no further, when the engine died: it may be the cause."""

    @property
    def history(self) -> tuple[int, ...]:
        """What the sequence begins with: see Sequence."""
        return self.request.prompt_ids + self.output_ids


@dataclass(frozen=True, slots=True)
class KvLeased:
    """The KV bytes the request can come to need are set aside; a prefix of it may be there already."""

    request_id: RequestId
    cached_tokens: int
    hit_type: HitType
    kv: KvHandle | None


@dataclass(frozen=True, slots=True)
class KvRefused:
    """Not enough KV bytes are free; ask again once some have been released."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class SequencePrefilled:
    """All but the last token of the sequence is in its KV cache, and DecodeWorker has it."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class SequenceSpoke:
    """The sequence produced its first token in this life."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class SequenceEnded:
    """The request had its last word; the worker holds nothing of it any more."""

    request_id: RequestId
    usage: Usage
    kept: StoredKv | None
    """Its KV cache, if the engine kept it."""


@dataclass(frozen=True, slots=True)
class PrefillTurnEnded:
    """PrefillWorker gives its turn back."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DecodeTurnEnded:
    """DecodeWorker gives its turn back."""

    steps: int
    seconds: float


SchedulerWord = (
    Enqueue
    | Cancel
    | KvLeased
    | KvRefused
    | SequencePrefilled
    | SequenceSpoke
    | SequenceEnded
    | PrefillTurnEnded
    | DecodeTurnEnded
)

# --- heard by PrefillWorker ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartPrefill:
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class GrantPrefill:
    """Use the engine once, for at most so many prompt tokens; answered by PrefillTurnEnded."""

    budget_tokens: int


PrefillWord = StartPrefill | GrantPrefill | Cancel | EngineReplied

# --- heard by DecodeWorker -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JoinDecode:
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class GrantDecode:
    """Use the engine once, for so many steps; answered by DecodeTurnEnded."""

    steps: int


DecodeWord = JoinDecode | GrantDecode | Cancel | EngineReplied

# --- heard by CacheManager -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaseKv:
    """Set aside room for a sequence; answered by KvLeased or KvRefused."""

    request_id: RequestId
    history: tuple[int, ...]
    """The ids that a kept prefix may serve: none of a prompt that is to be scored, all of it has to be computed."""
    total_tokens: int
    """The most tokens it can come to hold, history and output."""


@dataclass(frozen=True, slots=True)
class ReleaseKv:
    """The lease's end."""

    request_id: RequestId
    kept: StoredKv | None


CacheWord = LeaseKv | ReleaseKv | PressureChanged | EngineReplied

# --- heard by MemoryMonitor ----------------------------------------------------------------------------------

MonitorWord = Tick | EngineReplied

# --- heard by the client -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class PrefillAdvanced:
    """`done` of `total` prompt tokens are in the KV cache."""

    request_id: RequestId
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class PromptScored:
    """The prompt's own ids with their log-probabilities: once, before the first token, and never dropped."""

    request_id: RequestId
    tokens: tuple[TokenOutput, ...]
    """All of them; the first has no log-probability, because nothing comes before it."""


@dataclass(frozen=True, slots=True)
class TokensDecoded:
    request_id: RequestId
    tokens: tuple[TokenOutput, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """Last word: the engine ended the sequence."""

    request_id: RequestId
    tokens: tuple[TokenOutput, ...]
    """Those not yet sent."""
    reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Last word: somebody ended it early."""

    request_id: RequestId
    cause: CancelCause
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """Last word: the engine failed this request."""

    request_id: RequestId
    error: str
    refused: bool = False
    """It asks for what cannot be done: see SequenceFailed."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Last word: it was not let in."""

    request_id: RequestId
    reason: RejectReason
    retry_after_s: float


LastWord = Finished | Cancelled | Failed | Rejected
Reply = Accepted | PrefillAdvanced | PromptScored | TokensDecoded | LastWord
