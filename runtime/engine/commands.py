"""Every word that crosses the engine seam: frozen plain values, never closures, never arrays."""

from dataclasses import dataclass

from runtime.types import FinishReason, KvHandle, KvPiece, MemoryUsage, ModelFacts, Sampling, SequenceId, TokenOutput

# --- commands ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Load the model in directory `path`. Answered by Loaded."""

    path: str
    trust_remote_code: bool = False
    kv_bits: int | None = None
    """Bits per element of the KV caches; None: the type that the model computes in."""
    cache_dir: str = ""
    """Where pieces of KV cache outlive the engine; empty: nowhere."""
    dtype: str = "auto"
    """The type to compute in: `float32`, `bfloat16`, `float16`, or `auto`, which is what suits the device."""
    batch_invariant: bool = False
    """Compute every row in shapes that do not depend on its company. CommandFailed with `model_error` if this model
    cannot be computed so on this device."""
    chunk_tokens: int = 0
    """Prompts come in chunks that end at multiples of it, so a history that is computed anew has to be computed in the
    same: the prompt by these chunks, the output step by step. 0: in any."""


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

    All ids of `history` but the last must be in its KV cache already; the last is fed in the first step. Or those of
    the prompt but its last one: then the output that `history` ends with is fed step by step, as it was made, before
    the row produces anything new.
    """

    sequence_id: SequenceId
    history: tuple[int, ...]
    """Prompt ids and, after a restart, the output ids that were delivered before it."""
    prompt_tokens: int
    """How many ids of `history` are the prompt; the rest is output, and counts towards max_tokens."""
    sampling: Sampling
    keep_kv: bool
    """Keep the KV cache when the row finishes, until Forget."""
    apart: bool = False
    """Never in a batch with another row."""


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
    """Keep pieces of a sequence's KV cache, in whatever phase it is. What it does not hold is left out, and so is all
    of a sequence that is not known (any more); a piece that is kept already is not kept twice. Answered by Stored."""

    sequence_id: SequenceId
    pieces: tuple[KvPiece, ...]


@dataclass(frozen=True, slots=True)
class LoadKv:
    """Start a sequence, or start it anew, with the first `tokens` tokens of kept pieces, which stay kept. Caches that
    cannot be cut must be loaded up to a piece's end. Answered by KvLoaded."""

    sequence_id: SequenceId
    handles: tuple[KvHandle, ...]
    """In the order of their tokens, from the first on."""
    tokens: int


@dataclass(frozen=True, slots=True)
class DropKv:
    """Let go of kept pieces in memory; unknown handles are ignored. Answered by Done."""

    handles: tuple[KvHandle, ...]


@dataclass(frozen=True, slots=True)
class ListKv:
    """Tell which pieces are on disk. Answered by KvListed."""


@dataclass(frozen=True, slots=True)
class FetchKv:
    """Read pieces from disk into memory. One that is missing, damaged or foreign is skipped. Answered by Stored."""

    handles: tuple[KvHandle, ...]


@dataclass(frozen=True, slots=True)
class EraseKv:
    """Delete pieces on disk; unknown handles are ignored. Answered by Done."""

    handles: tuple[KvHandle, ...]


@dataclass(frozen=True, slots=True)
class ClearKv:
    """Let go of all kept pieces, in memory, on disk and on their way there; return when the files are gone.
    Answered by KvListed: what could not be deleted."""


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Return freed memory that is kept for reuse to the system. Answered by Done."""


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Measure. Answered by MemoryReported."""


Command = (
    LoadModel
    | Prefill
    | Join
    | Decode
    | Forget
    | StoreKv
    | LoadKv
    | DropKv
    | ListKv
    | FetchKv
    | EraseKv
    | ClearKv
    | GiveBack
    | MemoryReport
)

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
    kv_tokens: int = 0
    """With `finish`: how many leading ids of its history the kept cache holds; 0 if none was kept."""


@dataclass(frozen=True, slots=True)
class Decoded:
    rows: tuple[DecodedRow, ...]
    steps: int
    """Steps that were run: fewer than asked for when no row was left, or when one failed."""
    seconds: float
    failed: tuple[SequenceFailed, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """What is in memory now of the pieces that were named."""

    sequence_id: SequenceId | None
    """Whose they are; None of pieces that were fetched."""
    sizes: tuple[tuple[KvHandle, int], ...]
    """Bytes by piece."""
    missing: tuple[KvHandle, ...] = ()
    """Those that could not be had."""
    unwritten: tuple[KvHandle, ...] = ()
    """Any pieces, of this or an earlier StoreKv, that turned out not to be on disk since the last answer."""


@dataclass(frozen=True, slots=True)
class KvLoaded:
    sequence_id: SequenceId
    tokens: int
    """How many it starts with; 0: a piece was not in memory, and nothing was done."""


@dataclass(frozen=True, slots=True)
class KvListed:
    pieces: tuple[tuple[KvPiece, int], ...]
    """With their bytes on disk; least recently used first."""


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


Result = Loaded | Prefilled | Decoded | Stored | KvLoaded | KvListed | Done | MemoryReported | CommandFailed
