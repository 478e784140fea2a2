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
    KvCheckpoint,
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
    cache_salt: str = ""
    """Kept prefixes are shared among requests of the same salt only."""
    score_prompt: int | None = None
    """Say PromptScored before the first token, with so many of the likeliest ids in each place; None: do not."""
    background: bool = False
    """Nobody waits for it: it gives way to requests that somebody waits for, and the door knows nothing of it."""
    apart: bool = False
    """Its row shares a batch with no other."""
    fresh: bool = False
    """No kept prefix serves it."""
    leaves_kv: bool = True
    """What it holds may be kept for others, on the way and once it has left."""

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
    """Prompt ids, then the output ids of earlier runs."""
    cached_tokens: int
    """How many ids of `history` its KV cache begins with, at most all but the last."""
    hit_type: HitType
    checkpoints: tuple[KvCheckpoint, ...] = ()
    """What is to be kept of its KV cache on the way."""
    unsent: tuple[TokenOutput, ...] = ()
    """The end of `history`: tokens of earlier runs that the client has not taken yet."""
    served_before: int | None = None
    """How much of the prompt the prefix cache served in the first run, if this is not the first."""

    @property
    def served_tokens(self) -> int:
        """How much of the prompt the prefix cache served, so that nobody computed it for this request."""
        served = self.cached_tokens if self.served_before is None else self.served_before
        return min(served, len(self.request.prompt_ids))


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
class Preempt:
    """Put this request back in line: its KV bytes are needed. Follows its sequence as Cancel does."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class EngineReplied:
    """The engine's result for a command this actor submitted."""

    result: Result
    at: float
    """When the engine was done."""


@dataclass(frozen=True, slots=True)
class PressureMeasured:
    """How near the machine is to running out of memory, now."""

    level: PressureLevel


@dataclass(frozen=True, slots=True)
class Tick:
    """Time goes by."""

    now: float


@dataclass(frozen=True, slots=True)
class EngineRoomOpened:
    """The engine is loaded and its actors stand ready, for the first time or again."""

    epoch: int
    facts: ModelFacts


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
class RequestPreempted:
    """The request is back in line."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class RequestClosed:
    """The request had its last word and everything it held is free."""

    request_id: RequestId
    usage: Usage


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
    | RequestPreempted
    | RequestClosed
    | EngineRoomOpened
    | EngineRoomClosed
    | HouseClosing
    | PressureMeasured
    | Tick
)

# --- heard by Scheduler --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Put a request in line. One meant for an earlier life of the engine room is ignored."""

    epoch: int
    request: Request
    output_ids: tuple[int, ...]
    """Output of earlier runs: the sequence goes on behind it."""
    unsent: tuple[TokenOutput, ...] = ()
    """The end of it, which the client has not taken yet."""
    served_before: int | None = None
    """See Sequence."""
    suspect: bool = False
    """It was on stage, and had got no further, when the engine died: it may be the cause."""

    @property
    def history(self) -> tuple[int, ...]:
        """What the sequence begins with: see Sequence."""
        return self.request.prompt_ids + self.output_ids


@dataclass(frozen=True, slots=True)
class KvLeased:
    """KV bytes are set aside for the request; its sequence may have a beginning already."""

    request_id: RequestId
    cached_tokens: int
    hit_type: HitType
    checkpoints: tuple[KvCheckpoint, ...] = ()
    """See Sequence."""


@dataclass(frozen=True, slots=True)
class KvRefused:
    """Not enough KV bytes are free; ask again once some have been released."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class KvOverdrawn:
    """The running sequences have come to take more KV bytes than there are: somebody has to go back in line."""


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
    sequence_id: SequenceId
    usage: Usage
    held: tuple[int, ...]
    """The ids whose keys and values the engine still has of it; none if they are not to be kept."""


@dataclass(frozen=True, slots=True)
class SequencePreempted:
    """The sequence left its worker; its request goes on later."""

    sequence: Sequence
    output_ids: tuple[int, ...]
    """All of its output."""
    unsent: tuple[TokenOutput, ...]
    """The end of it, which the client has not taken yet."""
    held: tuple[int, ...]
    """As in SequenceEnded."""


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


@dataclass(frozen=True, slots=True)
class DivergenceMeasured:
    """A round of probes has ended: whether company changes what requests are answered. Said after each, because the
    Scheduler may be in another life than the last time."""

    diverged: bool


SchedulerWord = (
    Enqueue
    | Cancel
    | KvLeased
    | KvRefused
    | KvOverdrawn
    | SequencePrefilled
    | SequenceSpoke
    | SequenceEnded
    | SequencePreempted
    | PrefillTurnEnded
    | DecodeTurnEnded
    | DivergenceMeasured
)

# --- heard by PrefillWorker ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartPrefill:
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class GrantPrefill:
    """Use the engine once, for at most so many prompt tokens; answered by PrefillTurnEnded."""

    budget_tokens: int


@dataclass(frozen=True, slots=True)
class PrefixFound:
    """More of a sequence's prompt has been kept since it was leased: somebody else's, who began the same."""

    request_id: RequestId
    tokens: int
    hit_type: HitType
    handles: tuple[KvHandle, ...]
    """Where they lie, as LoadKv wants them; they may be gone by then."""


@dataclass(frozen=True, slots=True)
class CheckpointHandled:
    """CacheManager has seen the engine's answer about a checkpoint of this request; whoever can begin with it has been
    told PrefixFound."""

    sequence_id: SequenceId


PrefillWord = StartPrefill | GrantPrefill | PrefixFound | CheckpointHandled | Preempt | Cancel | EngineReplied

# --- heard by DecodeWorker -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JoinDecode:
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class GrantDecode:
    """Use the engine once, for so many steps; answered by DecodeTurnEnded."""

    steps: int


DecodeWord = JoinDecode | GrantDecode | Preempt | Cancel | EngineReplied

# --- heard by CacheManager -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaseKv:
    """Set aside room for a sequence, and start it with what is kept of its history; answered by KvLeased or
    KvRefused."""

    request: Request
    sequence_id: SequenceId
    history: tuple[int, ...]
    """See Sequence. A prompt that is to be scored has to be computed: no kept prefix serves it."""
    again: bool = False
    """It ran before and was preempted."""


@dataclass(frozen=True, slots=True)
class KvGrew:
    """The sequence has come to hold so many tokens."""

    request_id: RequestId
    tokens: int


@dataclass(frozen=True, slots=True)
class PrefixTaken:
    """The sequence was started anew with what PrefixFound told."""

    request_id: RequestId
    hit_type: HitType


@dataclass(frozen=True, slots=True)
class ReleaseKv:
    """The lease's end: the engine may forget the sequence, once what is worth it has been kept."""

    request_id: RequestId
    sequence_id: SequenceId
    held: tuple[int, ...]
    """See SequenceEnded."""


@dataclass(frozen=True, slots=True)
class ClearCache:
    """Let go of all kept prefixes, in memory and on disk."""

    cleared: Callable[[], None]
    """Called once they are gone."""


CacheWord = LeaseKv | KvGrew | PrefixTaken | ReleaseKv | ClearCache | PressureMeasured | EngineReplied

# --- heard by MemoryMonitor ----------------------------------------------------------------------------------

MonitorWord = Tick | EngineReplied

# --- heard by DivergenceProbe --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbePrompts:
    """What to probe with: prompts such as clients send, of at least two ids each."""

    prompts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ProbeCandidate:
    """A greedy request has been answered: a sample of the real traffic, to be computed again alone."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    output_ids: tuple[int, ...]
    """All of its output."""


@dataclass(frozen=True, slots=True)
class ProbeReplied:
    """What a client would have heard, of a request of the probe's own."""

    reply: "Reply"


ProbeWord = Tick | EngineRoomOpened | ProbePrompts | ProbeCandidate | ProbeReplied

# --- heard by the client -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Staged:
    """It has left the line. Said once per run: again after it was preempted, or the engine died."""

    request_id: RequestId
    cached_tokens: int
    """How much of its prompt the prefix cache serves."""


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
Reply = Accepted | Staged | PrefillAdvanced | PromptScored | TokensDecoded | LastWord
