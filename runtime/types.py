"""The plain values that every floor shares: ids, sampling settings, what a model is, what a step gives."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

RequestId = NewType("RequestId", str)
"""What a client wants, once; unique for the life of the server."""

SequenceId = NewType("SequenceId", int)
"""What a worker advances: one run of a request in one life of the engine room."""

KvHandle = NewType("KvHandle", bytes)
"""The name of a kept piece of KV cache: a digest of its namespace and of all ids up to the piece's end (each piece's
name is made of its parent's, policies/pieces.py), so that equal names mean equal contents, in memory and on disk."""


@dataclass(frozen=True, slots=True)
class KvPiece:
    """Keys and values of consecutive ids of a history. Of caches that cannot be cut it is a checkpoint: their state at
    `stop`."""

    handle: KvHandle
    parent: KvHandle
    """The piece before it; of the first the root, a digest that names no piece."""
    start: int
    """How many ids of the history come before it."""
    token_ids: tuple[int, ...]
    """At least one."""

    @property
    def stop(self) -> int:
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class KvCheckpoint:
    """What is to be kept of a sequence when its KV cache holds `tokens` ids: no fewer and no more."""

    tokens: int
    pieces: tuple[KvPiece, ...]


class FinishReason(StrEnum):
    """Why the engine ended a row by itself."""

    STOP = "stop"
    """It produced one of the stop ids, or a word of its grammar that nothing can be added to."""
    LENGTH = "length"
    """It produced `max_tokens` tokens."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one row chooses its tokens. Every row has its own; nothing here belongs to the batch.

    The order is mlx-lm's: penalties and bias on the logits, then top-p, min-p and top-k on the distribution
    that gives, then temperature. Randomness is a function of (seed, position) alone.
    """

    max_tokens: int
    """How many tokens the row may produce in all, at least 1; with 0 a request ends where its row would begin."""
    stop_ids: frozenset[int] = frozenset()
    """Token ids that end the row (the model's end-of-sequence ids)."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of every id seen in prompt or output (CTRL, arXiv 1909.05858)."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of every id in the output (OpenAI's definition)."""
    frequency_penalty: float = 0.0
    """Subtracted from the logit of every id in the output, once per occurrence (OpenAI's definition)."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, bias) pairs, ids within the vocabulary: MLX does not check them, and a bad one is a SIGSEGV."""
    top_logprobs: int | None = None
    """None: no log-probabilities; n: those of the chosen token and of the n likeliest."""
    grammar: str = ""
    """What the output must spell (or the beginning of it, cut off by max_tokens), as llguidance reads it: Lark, or its
    JSON form. Empty: free. Tokens that it does not allow are taken out after penalties and bias, before all else. The
    row ends with STOP where nothing can be added, or by a stop id where nothing must be."""


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One token, produced, or scored in a prompt (ScoredSlice). Log-probabilities are natural logarithms, of the
    distribution after penalties and bias and before grammar, temperature and filters, so that they are finite; None
    where the row did not ask."""

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


SHORT_TOKENS = 512
"""Rows up to this length share a batch whatever they are, and may be padded to it."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the house needs to know of the loaded model, as the engine found it."""

    context_tokens: int
    """Tokens a sequence may hold, prompt and output together."""
    declared_context_tokens: int
    """The same as the model says it of itself, whatever the operator chose and memory can hold."""
    vocab_size: int
    """Rows of the output distribution: every id fed in or biased must be below it."""
    kv_bytes_per_token: int
    """Bytes one more token costs in the KV cache of one sequence."""
    batchable: bool
    """Whether the model's caches can be merged, so that more than one sequence runs at once."""
    trimmable: bool
    """Whether a cache can be cut at any token; if not (rotating, recurrent), only whole states of it can be kept."""
    device: str
    """`cpu`, `metal` or `cuda`."""
    dtype: str
    """The element type the model computes in."""
    weight_bytes: int
    memory_bytes: int
    """Memory the device can use in all: of the machine on the CPU, what Metal recommends, of the CUDA card."""
    free_bytes: int
    """What of it was free once the model was loaded."""
    padding_ratio: float
    """How many times its own length a row may be padded to in a batch, if that is more than SHORT_TOKENS; infinite
    where all share one."""


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """Memory as the engine process sees it; all in bytes but the fraction."""

    active_bytes: int
    peak_bytes: int
    cache_bytes: int
    resident_bytes: int
    system_total_bytes: int
    system_used_fraction: float
    """Used memory of the whole machine, 0 to 1."""


class PressureLevel(StrEnum):
    """How near the machine is to running out of memory."""

    NORMAL = "normal"
    WARN = "warn"
    LIMIT = "limit"


class MemoryAction(StrEnum):
    """What the door does at PressureLevel.LIMIT."""

    WARN = "warn"
    REDUCE_CONTEXT = "reduce-context"
    REJECT_NEW = "reject-new"


class RuntimeMode(StrEnum):
    """How many sequences run at once."""

    AUTO = "auto"
    """One, until there has been company; then as many as there is room for."""
    SIMPLE = "simple"
    BATCHED = "batched"


class DivergenceAction(StrEnum):
    """What follows when company changes what a request is answered."""

    WARN = "warn"
    SERIALIZE = "serialize"
    """One sequence at a time, until it is over."""


class DivergenceCause(StrEnum):
    """What a probe's tokens are compared over: everything else about the two runs is the same."""

    COMPANY = "company"
    """Alone, and in a batch with others."""
    CACHE = "cache"
    """From an empty KV cache, and from a kept prefix."""
    TRAFFIC = "traffic"
    """As a client was answered, and alone from an empty KV cache."""


class RepetitionPolicy(StrEnum):
    """How soon a text that goes round in circles is ended."""

    SAFE = "safe"
    """What nobody can have asked for."""
    STRICT = "strict"
    """Repetition that a prompt may have asked for, too."""


class CacheStrategy(StrEnum):
    """How the prefix cache keeps what has been computed."""

    AUTO = "auto"
    MEMORY_AWARE = "memory-aware"
    PAGED = "paged"
    LEGACY = "legacy"


class HitType(StrEnum):
    """How much of a prompt the prefix cache held."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUPERSEQUENCE = "supersequence"
    LCP = "lcp"
    MISS = "miss"


class RejectReason(StrEnum):
    """Why RequestAdmitter said no."""

    QUEUE_FULL = "queue_full"
    DRAINING = "draining"
    MEMORY_PRESSURE = "memory_pressure"


class CancelCause(StrEnum):
    """Why a request was told to end early."""

    CLIENT_LEFT = "client_left"
    STOP_STRING = "stop_string"
    """The text floor saw a stop string, the end of the only call that the request may make, or repetition."""
    DEADLINE = "deadline"
    STALLED = "stalled"
    """The client stopped reading."""
    SHUTDOWN = "shutdown"
    OPERATOR = "operator"
    """Whoever runs the server ended it."""
