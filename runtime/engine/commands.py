"""Every word that crosses the engine seam: frozen plain values, never closures, never arrays."""

from dataclasses import dataclass

from runtime.types import FinishReason, KvHandle, MemoryUsage, ModelFacts, Sampling, SequenceId, TokenOutput

# --- commands ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Load the model in directory `path`. Answered by Loaded."""

    path: str
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class PrefillSlice:
    """The next `token_ids` of one sequence's prefix, at least one."""

    sequence_id: SequenceId
    token_ids: tuple[int, ...]
    targets: tuple[int, ...] = ()
    """The ids to score: for each of `token_ids` the one that comes behind it. Empty: score none."""
    top_logprobs: int = 0
    """How many of the likeliest ids to tell in the place of each target."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """Put slices into the KV caches of their sequences; a sequence not heard of before starts empty.
    Answered by Prefilled."""

    slices: tuple[PrefillSlice, ...]


@dataclass(frozen=True, slots=True)
class JoinRow:
    """One sequence that is ready to produce tokens.

    All ids of `history` but the last must be in its KV cache already; the last is fed in the first step.
    """

    sequence_id: SequenceId
    history: tuple[int, ...]
    """Prompt ids and, after a restart, the output ids that were delivered before it."""
    prompt_tokens: int
    """How many ids of `history` are the prompt; the rest is output, and counts towards max_tokens."""
    sampling: Sampling
    keep_kv: bool
    """Keep the KV cache when the row finishes, until StoreKv or Forget."""


@dataclass(frozen=True, slots=True)
class Join:
    """Let rows take part from the next step on. Answered by Done."""

    rows: tuple[JoinRow, ...]


@dataclass(frozen=True, slots=True)
class Decode:
    """Advance every joined row by up to `steps` tokens. Answered by Decoded."""

    steps: int = 1


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop sequences in whatever phase they are; unknown ids are ignored. Answered by Done."""

    sequence_ids: tuple[SequenceId, ...]


@dataclass(frozen=True, slots=True)
class StoreKv:
    """Keep the KV cache of a finished row under `handle`. Answered by Done."""

    sequence_id: SequenceId
    handle: KvHandle


@dataclass(frozen=True, slots=True)
class LoadKv:
    """Start a sequence with the first `tokens` tokens of a stored KV cache, which stays stored. Answered by Done."""

    handle: KvHandle
    sequence_id: SequenceId
    tokens: int


@dataclass(frozen=True, slots=True)
class DropKv:
    """Let go of stored KV caches; unknown handles are ignored. Answered by Done."""

    handles: tuple[KvHandle, ...]


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Measure. Answered by MemoryReported."""


Command = LoadModel | Prefill | Join | Decode | Forget | StoreKv | LoadKv | DropKv | MemoryReport

# --- results -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    facts: ModelFacts


@dataclass(frozen=True, slots=True)
class SequenceFailed:
    """One sequence made the engine raise. It is gone; the others go on as if it had never been there."""

    sequence_id: SequenceId
    error: str
    """One line."""
    refused: bool = False
    """It asks for what cannot be done, such as a grammar that is too complex: nothing is wrong with the engine."""


@dataclass(frozen=True, slots=True)
class ScoredSlice:
    """The targets of one PrefillSlice with their log-probabilities: of the model's own distribution, which no
    setting of the sequence changes."""

    sequence_id: SequenceId
    targets: tuple[TokenOutput, ...]


@dataclass(frozen=True, slots=True)
class Prefilled:
    tokens: int
    """How many prompt tokens the slices held, all together."""
    seconds: float
    """How long the engine took."""
    failed: tuple[SequenceFailed, ...] = ()
    scored: tuple[ScoredSlice, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodedRow:
    """What one row produced in one Decode, oldest token first."""

    sequence_id: SequenceId
    tokens: tuple[TokenOutput, ...]
    finish: FinishReason | None
    """Set with the row's last token; the row has left the batch by then."""


@dataclass(frozen=True, slots=True)
class Decoded:
    rows: tuple[DecodedRow, ...]
    steps: int
    """Steps that were run: fewer than asked for when no row was left, or when one failed."""
    seconds: float
    failed: tuple[SequenceFailed, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The command was carried out and has nothing to tell."""


@dataclass(frozen=True, slots=True)
class MemoryReported:
    usage: MemoryUsage


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """The command raised. What the engine held may be half-changed; its host is of no further use."""

    command: str
    """The command's name."""
    error: str
    """One line: type and text of the error."""
    model_error: bool = False
    """The model itself is at fault (missing, broken, unsupported), so trying again is in vain."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The heartbeat of an engine's step loop: it is at work, and this is what on. Answers no command."""

    doing: str


Result = Loaded | Prefilled | Decoded | Done | MemoryReported | CommandFailed
