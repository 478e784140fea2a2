"""What the server sends, for the API's document: the members that are always there, and those that may be."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic cannot read the library's before Python 3.12

from api.text.repetition import RepetitionTrigger

FinishReason = Literal["stop", "length", "tool_calls"]


class ErrorDetail(TypedDict):
    message: str
    type: Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
    param: str | None
    """The path of the field at fault, such as `messages.0.content`."""
    code: str | None


class ErrorReply(TypedDict):
    """What went wrong, in OpenAI's envelope."""

    error: ErrorDetail


class AnthropicErrorDetail(TypedDict):
    type: str
    message: str


class AnthropicErrorReply(TypedDict):
    """What went wrong, in Anthropic's envelope."""

    type: Literal["error"]
    error: AnthropicErrorDetail


class CachedTokens(TypedDict):
    cached_tokens: int


class ReasoningTokens(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens


class CalledFunction(TypedDict):
    name: str
    arguments: str
    """JSON in a string."""


class ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    reasoning: NotRequired[str | None]
    """There with --reasoning-parser alone."""
    reasoning_content: NotRequired[str | None]
    """The same; clients read either name."""
    tool_calls: NotRequired[list[ToolCall]]


class TopLogprob(TypedDict):
    token: str
    bytes: list[int]
    logprob: float


class ScoredToken(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    content: list[ScoredToken]
    refusal: None


class ChatChoice(TypedDict):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stop_reason: NotRequired[Literal["repetition_detected"]]
    stop_reason_detail: NotRequired[RepetitionTrigger]


class ChatCompletion(TypedDict):
    """A conversation's next turn."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    diagnostics: NotRequired[dict[str, object]]


class CompletionLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason
    stop_reason: NotRequired[Literal["repetition_detected"]]
    stop_reason_detail: NotRequired[RepetitionTrigger]


class Completion(TypedDict):
    """How prompts go on."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    diagnostics: NotRequired[dict[str, object]]


class ResponseItem(TypedDict):
    id: str
    type: Literal["reasoning", "message", "function_call"]
    status: Literal["completed", "incomplete"]


class StoredResponse(TypedDict):
    """A response, as OpenAI's Responses API has it."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    model: str
    output: list[ResponseItem]
    repetition_detected: NotRequired[RepetitionTrigger]


class Deleted(TypedDict):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ThinkingDetails(TypedDict):
    thinking_tokens: int


class MessageUsage(TypedDict):
    input_tokens: int
    """The whole prompt."""
    cache_creation_input_tokens: Literal[0]
    cache_read_input_tokens: Literal[0]
    output_tokens: int
    output_tokens_details: ThinkingDetails


class TextOut(TypedDict):
    type: Literal["text"]
    text: str


class ThinkingOut(TypedDict):
    type: Literal["thinking"]
    thinking: str
    signature: Literal[""]


class ToolUseOut(TypedDict):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, object]


class MessageReply(TypedDict):
    """Anthropic's message."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextOut | ThinkingOut | ToolUseOut]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    repetition_detected: NotRequired[RepetitionTrigger]
    usage: MessageUsage


class TokenCount(TypedDict):
    input_tokens: int


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]


class Health(TypedDict):
    """`ok` if the next request would be served."""

    status: Literal["ok", "loading", "restarting", "draining"]
    model: str
    uptime_s: float


class HealthCheck(TypedDict):
    status: Literal["ok", "warning", "error", "unknown"]
    """`unknown` where nobody has looked."""
    detail: str
    mend: str | None
    """What to do about it; null where there is nothing to mend."""
    figures: dict[str, object]


class HealthChecks(TypedDict):
    dtype: HealthCheck
    eos_template: HealthCheck
    memory_pressure: HealthCheck
    versions: HealthCheck
    batch_invariance: HealthCheck


class HealthReport(TypedDict):
    """`status` is the worst of all checks that know anything, `warning` at least while the model is loaded, and `error`
    while a dead engine is started anew."""

    status: Literal["ok", "warning", "error", "unknown"]
    server: Literal["ok", "loading", "restarting", "draining"]
    """As /health has it."""
    model: str
    uptime_s: float
    checks: HealthChecks


class QueueNumbers(TypedDict):
    running: bool
    queue_size: int
    max_queue_size: int
    active_requests: int
    max_concurrency: int


class QueueStats(TypedDict):
    status: Literal["ok"]
    queue_stats: QueueNumbers


class Metal(TypedDict):
    active_memory_gb: float | None
    peak_memory_gb: float | None
    cache_memory_gb: float | None


class Memory(TypedDict):
    pressure: Literal["normal", "warn", "limit"] | None
    engine_resident_gb: float | None
    system_used_percent: float | None


class Hits(TypedDict):
    """Prompts that were looked up, by what was found."""

    exact: int
    prefix: int
    supersequence: int
    lcp: int
    miss: int


class Cache(TypedDict):
    """What is kept of prompts and replies; counted since the server was started."""

    type: Literal["auto", "memory-aware", "paged", "legacy"]
    """The strategy; `auto` until the model is loaded."""
    entries: int
    hit_rate: float
    memory_mb: float
    disk_entries: int
    """0 also until the engine has read what lies there, right after it was started."""
    disk_mb: float
    hits: Hits
    evictions: int


class Cleared(TypedDict):
    """What is there once all has been let go: what has been kept since, and files that cannot be deleted."""

    object: Literal["cache"]
    cleared: bool
    """Whether nothing lies on disk."""
    entries: int
    memory_mb: float
    disk_entries: int
    disk_mb: float


class Runtime(TypedDict):
    mode: Literal["simple", "batched"] | None
    """`simple` is one sequence at a time; null while there is no engine."""
    serialized: bool
    """Whether it is one at a time because answers diverged in company."""
    active_concurrency: int
    peak_concurrency: int


class DivergenceTally(TypedDict):
    """Of comparing the tokens of two runs of each prompt."""

    prompts: int
    compared_tokens: int
    agreement: float
    first_difference: int | None
    largest_logprob_difference: float | None


class Divergence(TypedDict):
    """What --batch-divergence-monitor has found."""

    rounds: int
    given_up: int
    """Rounds that came to no result."""
    under_way: bool
    diverged: bool
    threshold: float
    seconds_since_round: float | None
    """Since the last one ended."""
    tallies: dict[Literal["company", "cache", "traffic"], DivergenceTally]
    """Of the last round, by what the two runs differ in."""


class OpenRequest(TypedDict):
    request_id: str
    age_s: float | None
    """Since it came."""
    phase: Literal["queued", "prefill", "generation"]
    tokens_per_second: float
    ttft_s: float | None
    progress: float
    cache_hit_type: Literal["exact", "prefix", "supersequence", "lcp", "miss"] | None
    cached_tokens: int
    generated_tokens: int
    max_tokens: int | None


class Status(TypedDict):
    """Totals since the start, and every open request."""

    status: Literal["running", "stopped", "not_loaded"]
    model: str
    uptime_s: float
    steps_executed: int
    num_running: int
    num_waiting: int
    num_preemptions: int
    """How often a sequence had to go back in line because its memory was needed."""
    total_requests_processed: int
    total_prompt_tokens: int
    total_completion_tokens: int
    metal: Metal
    memory: Memory
    cache: Cache
    runtime: Runtime
    divergence: Divergence | None
    """Null without --batch-divergence-monitor."""
    requests: list[OpenRequest]


class Ended(TypedDict):
    """It ends within a step of the engine."""

    id: str
    object: Literal["request.cancelled"]
    cancelled: Literal[True]
