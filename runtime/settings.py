"""Every setting, defined once: flag, environment variable, TOML key, help text and docs/settings.md follow."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from runtime.errors import SettingsError
from runtime.types import CacheStrategy, DivergenceAction, MemoryAction, RepetitionPolicy, RuntimeMode

Percent = Annotated[float, Gt(0), Le(100)]
Positive = Annotated[float, Gt(0)]
ToolParser = Literal[
    "auto",
    "mistral",
    "qwen",
    "llama",
    "hermes",
    "deepseek",
    "kimi",
    "granite",
    "nemotron",
    "xlam",
    "functionary",
    "glm47",
]
ReasoningParser = Literal["auto", "qwen3", "deepseek_r1"]


def _split(value: object) -> object:
    """A flag or a variable is one string, with commas between its parts; a file may have a list."""
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


def _is_origin(word: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s*]+", word):
        raise ValueError(f"{word!r} is not an origin such as https://chat.example: no path, no *")
    return word


def _number(value: object) -> object:
    """A flag or a variable is a string; a choice of numbers wants a number."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


KvBits = Annotated[Literal[4, 8] | None, BeforeValidator(_number)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_is_origin)], ...], BeforeValidator(_split)]


AUTO_CONCURRENCY = 32
INVARIANT_CHUNK_TOKENS = 64
"""A block of the paged cache: kept prefixes then end where chunks do."""


def _rows(value: object) -> object:
    return AUTO_CONCURRENCY if value == "auto" else value


class Settings(BaseModel):
    """What an operator can choose. `title` names the group a setting is shown under; `alias` another flag."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, frozen=True, validate_by_name=True, validate_by_alias=False
    )

    model: str | None = Field(
        None,
        title="Model",
        description="an mlx-lm directory, a Hugging Face repository id or a GGUF file; "
        "none serves the embedded SmolLM2-135M-Instruct",
    )
    model_type: Literal["auto", "lm"] = Field(
        "auto", title="Model", description="what kind of model it is: `lm` is a language model"
    )
    trust_remote_code: bool = Field(False, title="Model", description="run model code that comes with the weights")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", title="Model", description="type to compute in; `auto` is what suits the device"
    )

    host: str = Field("127.0.0.1", title="Server", description="address to listen on")
    port: Annotated[int, Ge(0), Le(65535)] = Field(8000, title="Server", description="port to listen on; 0 picks one")
    localhost: bool = Field(False, title="Server", description="listen on 127.0.0.1, whatever --host says")
    api_key: Annotated[str, MinLen(1)] | None = Field(
        None, title="Server", description="key that clients must send as Bearer or x-api-key"
    )
    rate_limit: Annotated[int, Ge(0)] = Field(
        0, title="Server", description="requests per minute and client (its key, else its address); 0 is no limit"
    )
    cors_origins: Origins = Field(
        (), title="Server", description="origins whose web pages may call the server, with commas between them"
    )
    enable_metrics: bool = Field(False, title="Server", description="Prometheus metrics at /metrics, without a key")
    max_body_mb: Positive = Field(16, title="Server", description="largest request body in MiB; beyond it 413")
    strict_model_id: bool = Field(False, title="Server", description="refuse requests that name another model")
    event_loop: Literal["asyncio", "trio"] = Field("asyncio", title="Server", description="event loop to run on")
    drain_timeout: Annotated[float, Ge(0)] = Field(
        30, title="Server", description="seconds that open requests have to end after SIGTERM"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", title="Server", description="least severe log lines to print"
    )
    log_format: Literal["text", "json"] = Field("text", title="Server", description="how log lines are written")
    dashboard: bool = Field(False, title="Server", description="show the dashboard in this terminal")

    timeout: Positive = Field(
        300, title="Requests", alias="queue_timeout", description="a request's deadline in seconds, waiting included"
    )
    queue_size: Annotated[int, Ge(0)] = Field(
        100, title="Requests", description="requests that may wait beyond those that run; more get 429"
    )
    max_concurrency: Annotated[int, Ge(1), BeforeValidator(_rows)] = Field(
        "auto",
        validate_default=True,
        title="Requests",
        description=f"sequences that run at once; `auto` is {AUTO_CONCURRENCY}",
    )
    runtime_mode: RuntimeMode = Field(
        RuntimeMode.AUTO,
        title="Requests",
        description="`simple` runs one sequence at a time, `batched` many; `auto` is simple until some come together",
    )
    runtime_mode_threshold: Annotated[int, Ge(1)] = Field(
        2, title="Requests", description="open requests at which `auto` becomes batched, for good"
    )
    continuous_batching: bool = Field(False, title="Requests", description="the same as --runtime-mode batched")
    max_tokens: Annotated[int, Ge(1)] = Field(
        32768, title="Requests", description="output tokens when a request names none; bounded by the context"
    )
    default_temperature: Annotated[float, Ge(0), Le(2)] | None = Field(
        None, title="Requests", description="temperature when a request names none (the APIs' own default otherwise)"
    )
    default_top_p: Annotated[float, Ge(0), Le(1)] | None = Field(
        None, title="Requests", description="top_p when a request names none (the APIs' own default otherwise)"
    )
    stream_interval: Annotated[int, Ge(1)] = Field(1, title="Requests", description="tokens per streamed chunk")
    stall_timeout: Positive = Field(
        60, title="Requests", description="seconds after which a client that reads nothing is cancelled"
    )
    repetition_policy: RepetitionPolicy = Field(
        RepetitionPolicy.SAFE,
        title="Requests",
        description="when a text that goes in circles is ended: `safe` spares what was asked for, `strict` does not",
    )
    trust_requests_when_auth_disabled: bool = Field(
        False, title="Requests", description="without --api-key, let requests choose their repetition policy"
    )
    effective_context_tokens: Annotated[int, Ge(1)] | None = Field(
        None,
        title="Requests",
        description="tokens that prompt and output may hold together; none is what the model declares",
    )

    enable_auto_tool_choice: bool = Field(
        False, title="Tools and reasoning", description="find the calls of tools in what the model writes"
    )
    tool_call_parser: ToolParser | None = Field(
        None,
        title="Tools and reasoning",
        description="how the model writes the calls of tools; implies --enable-auto-tool-choice, which alone is `auto`",
    )
    reasoning_parser: ReasoningParser | None = Field(
        None, title="Tools and reasoning", description="how the model marks its thinking; none leaves it in the content"
    )
    max_thinking_tokens: Annotated[int, Ge(0)] | None = Field(
        None,
        title="Tools and reasoning",
        description="tokens of thinking, beyond which it is content; needs --reasoning-parser",
    )

    engine: Literal["process", "thread"] = Field(
        "process", title="Engine", description="where the engine lives: a child process, or a thread of this one"
    )
    engine_load_timeout: Positive = Field(
        600, title="Engine", description="seconds that the engine may be silent while it loads the model"
    )
    engine_hang_timeout: Positive = Field(
        60, title="Engine", description="seconds that it may be silent at work before it is taken to hang"
    )
    engine_restarts: Annotated[int, Ge(0)] = Field(
        3, title="Engine", description="restarts of the engine within --engine-restart-window; one more death is fatal"
    )
    engine_restart_window: Positive = Field(60, title="Engine", description="seconds in which restarts are counted")
    prefill_chunk: Annotated[int, Ge(1)] = Field(
        512, title="Engine", description="most prompt tokens per engine turn; a cancel takes effect between turns"
    )
    max_gap_ratio: Annotated[float, Gt(1)] = Field(
        1.5,
        title="Engine",
        description="how many times their usual gap running streams may wait for a token while prompts come in",
    )

    cache_strategy: CacheStrategy = Field(
        CacheStrategy.AUTO,
        title="Cache",
        description="how prefixes are kept: `paged` shares what they have in common, `memory-aware` keeps whole ones, "
        "both within a number of bytes; `legacy` keeps a number of whole ones; `auto` is `paged` where the model's "
        "caches can be cut",
    )
    use_paged_cache: bool = Field(False, title="Cache", description="the same as --cache-strategy paged")
    cache_memory_mb: Annotated[int, Ge(0)] | None = Field(
        None, title="Cache", description="MiB the prefix cache may keep; 0 turns it off"
    )
    cache_memory_percent: Annotated[float, Ge(0), Le(1)] = Field(
        0.20,
        title="Cache",
        description="the same as a fraction of RAM, where --cache-memory-mb is not set; never more than is free",
    )
    cache_dir: Annotated[str, MinLen(1)] | None = Field(
        None, title="Cache", description="folder in which prefixes outlive the server; wants a cache in memory, too"
    )
    cache_dir_mb: Annotated[int, Gt(0)] = Field(
        10240, title="Cache", description="MiB of each model in --cache-dir; of no effect without it"
    )
    kv_bits: KvBits = Field(
        None, title="Cache", description="bits per element of KV caches; none is the type the model computes in"
    )
    kv_memory_mb: Annotated[int, Gt(0)] | None = Field(
        None,
        title="Cache",
        description="MiB for all KV caches, running and kept; none is what the machine has free",
    )

    deterministic: bool = Field(
        False,
        title="Reproducibility",
        description="same request, same answer: one sequence at a time, greedy, prompts in fixed chunks",
    )
    batch_invariant: bool = Field(
        False,
        title="Reproducibility",
        description="same tokens for a request whatever else runs, with as many at once as ever",
    )
    batch_divergence_monitor: bool = Field(
        False, title="Reproducibility", description="compare, now and then, what is answered alone and in company"
    )
    batch_divergence_interval: Positive = Field(
        300, title="Reproducibility", description="seconds from one comparison to the next"
    )
    batch_divergence_threshold: Annotated[float, Ge(0), Le(1)] = Field(
        0.95, title="Reproducibility", description="fraction of tokens that must agree"
    )
    batch_divergence_action: DivergenceAction = Field(
        DivergenceAction.WARN,
        title="Reproducibility",
        description="below it: only say so, or run one sequence at a time until it is over",
    )
    batch_divergence_sample: Annotated[int, Ge(0)] = Field(
        0, title="Reproducibility", description="also compute one in so many greedy requests again, alone; 0 is none"
    )

    memory_warn_threshold: Percent = Field(70.0, title="Memory", description="percent of RAM in use that is a warning")
    memory_limit_threshold: Percent = Field(85.0, title="Memory", description="percent of RAM in use that is the limit")
    memory_action: MemoryAction = Field(
        MemoryAction.WARN,
        title="Memory",
        description="at the limit: log, halve new requests' max tokens, or 503",
    )
    memory_monitor_interval: Positive = Field(5.0, title="Memory", description="seconds between two measurements")

    @property
    def mode(self) -> RuntimeMode:
        """How many sequences run at once, as far as the operator has said."""
        if self.deterministic:
            return RuntimeMode.SIMPLE
        return RuntimeMode.BATCHED if self.continuous_batching else self.runtime_mode

    @property
    def chunk_tokens(self) -> int:
        """Prompts come in chunks that end at multiples of it, whoever else runs; 0 is in any."""
        return INVARIANT_CHUNK_TOKENS if self.deterministic or self.batch_invariant else 0

    @property
    def credits(self) -> int:
        """How many requests may be inside at once, running and waiting."""
        return self.max_concurrency + self.queue_size

    @property
    def strategy(self) -> CacheStrategy:
        """How prefixes are kept, as far as the operator has said."""
        return CacheStrategy.PAGED if self.use_paged_cache else self.cache_strategy

    @property
    def tool_parser(self) -> ToolParser | None:
        """How calls of tools are found in the text; None where they are not looked for."""
        return self.tool_call_parser or ("auto" if self.enable_auto_tool_choice else None)

    @model_validator(mode="after")
    def _thinking_is_recognised(self) -> "Settings":
        if self.max_thinking_tokens is not None and self.reasoning_parser is None:
            raise ValueError("max_thinking_tokens needs reasoning_parser")
        return self

    @model_validator(mode="after")
    def _one_strategy(self) -> "Settings":
        if self.use_paged_cache and self.cache_strategy not in (CacheStrategy.AUTO, CacheStrategy.PAGED):
            raise ValueError("use_paged_cache and another cache_strategy exclude each other")
        return self

    @model_validator(mode="after")
    def _one_mode(self) -> "Settings":
        if self.continuous_batching and self.runtime_mode is RuntimeMode.SIMPLE:
            raise ValueError("continuous_batching and runtime_mode simple exclude each other")
        if self.deterministic and (self.continuous_batching or self.runtime_mode is RuntimeMode.BATCHED):
            batched = "continuous_batching" if self.continuous_batching else "runtime_mode batched"
            raise ValueError(f"deterministic and {batched} exclude each other")
        return self

    @model_validator(mode="after")
    def _disk_needs_memory(self) -> "Settings":
        by_percent = self.cache_memory_mb is None
        if self.cache_dir is not None and not (self.cache_memory_percent if by_percent else self.cache_memory_mb):
            bound = "cache_memory_percent" if by_percent else "cache_memory_mb"
            raise ValueError(f"cache_dir needs a cache in memory, and {bound} is 0")
        return self

    @model_validator(mode="after")
    def _limit_exceeds_warn(self) -> "Settings":
        if self.memory_limit_threshold <= self.memory_warn_threshold:
            raise ValueError("memory_limit_threshold must exceed memory_warn_threshold")
        return self


def flag(name: str) -> str:
    """The command line's spelling of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment's spelling of a setting."""
    return "TROUPE_" + name.upper()


def names(name: str, field: FieldInfo) -> tuple[str, ...]:
    """A setting's own name and its alias, if it has one."""
    return (name, field.alias) if field.alias else (name,)


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The words a setting may be, or () where it is not a choice of words."""
    for annotation in (field.annotation, *get_args(field.annotation)):
        if get_origin(annotation) is Literal:
            return tuple(map(str, get_args(annotation)))
        if isinstance(annotation, type) and issubclass(annotation, StrEnum):
            return tuple(annotation)
    return ()


def shown(default: object) -> str:
    """A default as a person reads it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if default is None or default == ():
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def load(flags: Mapping[str, object], *, config: Path | None = None) -> Settings:
    """Settle on every setting: a flag beats its environment variable, that beats the TOML file, that the default.

    Args:
        flags: what was given on the command line, by setting name.
        config: a TOML file of settings by name (underscores), or None.

    Raises:
        SettingsError: one line that names the first setting that cannot be used, as it was spelt where it was given.
    """
    on_line = {name: _Given(value, flag(name)) for name, value in flags.items()}
    given = {**_from_toml(config), **_from_environment(), **on_line}
    try:
        return Settings.model_validate({name: each.value for name, each in given.items()})
    except ValidationError as error:
        raise SettingsError(_one_line(error, {name: each.spelt for name, each in given.items()})) from None


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    spelt: str
    """The setting's name where the value comes from: a flag, a variable, or a key of the file."""


def _from_environment() -> dict[str, _Given]:
    found: dict[str, _Given] = {}
    for name, field in Settings.model_fields.items():
        for spelling in names(name, field):
            value = os.environ.get(variable(spelling))
            if value:
                found[name] = _Given(value, variable(spelling))
    return found


def _from_toml(config: Path | None) -> dict[str, _Given]:
    if config is None:
        return {}
    try:
        given = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{config}: {error}") from None
    own_names = {alias: name for name, field in Settings.model_fields.items() for alias in names(name, field)}
    return {own_names.get(name, name): _Given(value, name) for name, value in given.items()}


def _one_line(error: ValidationError, spelt: Mapping[str, str]) -> str:
    """What is wrong first. A setting that was not given, but has a part in it, goes by its flag."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such setting"
    if first["loc"]:
        return f"{spelt[str(first['loc'][0])]}: {message}"
    return re.sub(r"[a-z]+(_[a-z]+)+", lambda name: spelt.get(name[0], flag(name[0])), message)
