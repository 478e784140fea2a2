"""What a model directory says of its weights, read from its headers: no weight is read."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from runtime.models.directory import WEIGHTS

TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""The floating types that models compute in, by safetensors' names."""

PACKED = "U32"
"""How MLX stores quantised weights: several to a word."""


@dataclass(frozen=True, slots=True)
class ModelPapers:
    """What is known of a model without loading it. What cannot be read is missing."""

    declared_dtype: str | None = None
    """The type that its config.json names: what it was trained in, as a rule."""
    stored: Mapping[str, int] = field(default_factory=dict)
    """Bytes on disk per floating type, scales of quantised weights among them."""
    quantised_bits: int | None = None
    """Of most of its weights."""
    elements: int = 0
    """How many numbers its weights are, were they not quantised."""
    bytes: int = 0
    """Of all weights, on disk."""
    damaged: tuple[str, ...] = ()
    """Files of weights that cannot be read, or hold none."""

    @property
    def stored_dtype(self) -> str | None:
        """The floating type of most bytes."""
        return max(self.stored, key=self.stored.__getitem__, default=None)


def read_papers(path: Path) -> ModelPapers:
    """The papers of the model in directory `path`."""
    config = _config(path)
    quantised = _quantisation(config)
    stored: Counter[str] = Counter()
    elements = total = 0
    damaged = []
    for file in sorted(path.glob(WEIGHTS)):
        tensors = _tensors(file)
        if not tensors:
            damaged.append(file.name)
        for name, kind, numbers, nbytes in tensors:
            total += nbytes
            if kind in TYPES:
                stored[TYPES[kind]] += nbytes
            elements += _elements(name, kind, numbers, quantised)
    bits = quantised.get("bits")
    return ModelPapers(
        _declared(config), dict(stored), bits if isinstance(bits, int) else None, elements, total, tuple(damaged)
    )


def _tensors(file: Path) -> list[tuple[str, str, int, int]]:
    """Name, type, number of elements, and bytes of each; none of a file that cannot be read."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = [(name, tensors.get_slice(name)) for name in tensors.keys()]  # noqa: SIM118 (it is no dict)
            found = [(name, str(each.get_dtype()), prod(each.get_shape())) for name, each in slices]
    except (OSError, SafetensorError):
        return []
    return [(name, kind, numbers, numbers * _WIDTHS.get(kind, 1)) for name, kind, numbers in found]


_WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "U32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "U16": 2}


def _elements(name: str, kind: str, numbers: int, quantised: Mapping[str, object]) -> int:
    """How many weights a tensor holds; scales and biases of quantised ones are none."""
    if kind == PACKED and quantised:
        own = quantised.get(name.removesuffix(".weight"))
        bits = (own if isinstance(own, dict) else quantised).get("bits")
        return numbers * 32 // bits if isinstance(bits, int) and bits > 0 else numbers
    return 0 if quantised and name.endswith((".scales", ".biases")) else numbers


def _config(path: Path) -> Mapping[str, object]:
    try:
        # Python's own json: configurations hold numbers such as Infinity.
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _quantisation(config: Mapping[str, object]) -> Mapping[str, object]:
    for key in ("quantization", "quantization_config"):
        value = config.get(key)
        if isinstance(value, dict):
            return value
    return {}


def _declared(config: Mapping[str, object]) -> str | None:
    """transformers 5 writes `dtype`, earlier ones `torch_dtype`; models with several parts have it in one of them."""
    text = config.get("text_config")
    for place in (config, text if isinstance(text, dict) else {}):
        for key in ("dtype", "torch_dtype"):
            if isinstance(name := place.get(key), str):
                return name.removeprefix("torch.")
    return None
