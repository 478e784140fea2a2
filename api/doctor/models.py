"""Which models are here, and whether the one that is asked about can be served."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from api.doctor.finding import Finding, State
from api.health.check import Check, CheckStatus
from api.health.papers import ModelPapers, read_papers
from api.health.stops import stops_check
from runtime.errors import ModelError
from runtime.models.catalog import LocalModel, ModelKind, list_models
from runtime.models.resolve import can_only_be_a_path

_SHOWN = 5
_STATES = {
    CheckStatus.OK: State.OK,
    CheckStatus.UNKNOWN: State.MISSING,
    CheckStatus.WARNING: State.MISSING,
    CheckStatus.ERROR: State.BROKEN,
}


@dataclass(frozen=True, slots=True)
class AskedModel:
    """What was found of the model that is asked about."""

    name: str
    path: Path | None
    """None: it is not on this machine, or not as a model that can be loaded."""
    trouble: str = ""
    """Why it cannot be served; then the rest is empty."""
    papers: ModelPapers = field(default_factory=ModelPapers)
    stops: Check | None = None
    has_template: bool = False


def here() -> tuple[LocalModel, ...]:
    """See list_models; none where the disk cannot be read."""
    try:
        return list_models()
    except OSError:
        return ()


def has_default(models: Sequence[LocalModel]) -> bool:
    return any(model.kind is ModelKind.DEFAULT for model in models)


def look(name: str, models: Sequence[LocalModel], *, trust_remote_code: bool) -> AskedModel:
    """What is found of it on this disk; nothing is fetched, converted or loaded."""
    path = _path(name, models)
    if path is None:
        lost = can_only_be_a_path(name) and not os.path.exists(os.path.expanduser(name))
        return AskedModel(name, None, "no such file or directory" if lost else "")
    from api.text.loading import load_tokeniser  # noqa: PLC0415  (slow to import, and not always needed)
    from api.text.turn_trial import turn_ends  # noqa: PLC0415
    from runtime.models.directory import check_directory  # noqa: PLC0415

    try:
        check_directory(path, trust_remote_code=trust_remote_code)
        ends = turn_ends(load_tokeniser(path, trust_remote_code), path)
    except ModelError as error:
        return AskedModel(name, path, str(error))
    return AskedModel(name, path, "", read_papers(path), stops_check(ends, None), ends.has_template)


def _path(name: str, models: Sequence[LocalModel]) -> Path | None:
    """A directory, what a GGUF file has been converted to, or a model by its name."""
    path = Path(os.path.expanduser(name)).absolute()
    if path.is_dir():
        return path
    known = {model.name: model.path for model in models}
    return known.get(path.stem if path.is_file() else name)


def on_disk(models: Sequence[LocalModel]) -> Iterator[Finding]:
    """What can be served without fetching anything."""
    if not has_default(models):
        yield Finding(State.MISSING, "default model", "not here yet: fetched when first served", "troupe pull default")
    if models:
        shown = ", ".join(f"{model.name} ({model.bytes / 1e6:.0f} MB)" for model in models[:_SHOWN])
        more = f" and {len(models) - _SHOWN} more" if len(models) > _SHOWN else ""
        yield Finding(State.OK, "models", f"{shown}{more}")


def asked(model: AskedModel, *, device: str, memory: int, available: int) -> Iterator[Finding]:
    """Whether it can be served here. `memory` and `available` are bytes, of the device or of the machine."""
    what = f"model {model.name}"
    if model.trouble:
        yield Finding(State.BROKEN, what, model.trouble)
    elif model.papers.damaged:
        detail = f"{', '.join(model.papers.damaged)} cannot be read: an incomplete download, or damaged"
        yield Finding(State.BROKEN, what, detail, "fetch it again")
    elif model.path is None:
        yield Finding(State.MISSING, what, "not fetched and converted yet", f"troupe pull {model.name}")
    else:
        yield _size(what, model.papers, device, memory, available)
        if not model.has_template:
            detail = "none: chats are refused, /v1/completions works"
            yield Finding(State.MISSING, "chat template", detail, "serve a model that was made for chats")
        elif model.stops:
            state = _STATES[model.stops.status]
            yield Finding(state, "stop tokens", model.stops.detail.rstrip("."), model.stops.mend)


def _size(what: str, papers: ModelPapers, device: str, memory: int, available: int) -> Finding:
    """On the CPU weights are widened to float32."""
    needed = 4 * papers.elements if device == "cpu" else papers.bytes
    detail = f"its architecture is supported; its weights take {needed / 1e9:.2f} GB on {device or 'the device'}"
    if memory and needed > memory:
        return Finding(State.BROKEN, what, f"{detail}, which has {memory / 1e9:.1f} GB", "a smaller model")
    if needed > available:
        return Finding(State.SLOW, what, f"{detail}, and {available / 1e9:.1f} GB are free", "end other programs")
    return Finding(State.OK, what, detail)
