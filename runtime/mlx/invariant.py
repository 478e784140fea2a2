"""Makes a model batch-invariant: the tokens of a row are the same whatever else runs, bit for bit.

Three things of a row's step depend on its company elsewhere: the kernel its products with weights are computed by
(steady.py), the shape of its attention (aligned.py), and where its prompt is cut into chunks (LoadModel.chunk_tokens).
The rest is computed element by element, or row by row. That this is all there is, is not assumed: it is tried.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from runtime.engine.host import Beat
from runtime.errors import ModelError
from runtime.mlx import aligned, steady
from runtime.mlx.caches import Caches
from runtime.mlx.loader import LoadedModel

TRIED_TOKENS = (1, 3, 20, 63, 64, 65, 130, 190)
"""Lengths of the prompts that it is tried with: of one stretch and of several."""
TRIED_STEPS = 3


def made_invariant(loaded: LoadedModel, beat: Beat) -> LoadedModel:
    """The model, changed in place.

    Raises:
        ModelError: it cannot be; the text says why.
    """
    if reason := _refusal(loaded):
        raise ModelError(f"--batch-invariant is not possible with this model: {reason}")
    beat("trying products")
    aligned.teach(loaded.model)
    steady.steady(loaded.model)
    loaded = replace(loaded, invariant=True)
    beat("trying company")
    if not _company_is_nothing(loaded, beat):
        raise ModelError(
            "--batch-invariant is not possible with this model on this device: "
            "its steps give other results in company, although products and attention do not"
        )
    return loaded


def _refusal(loaded: LoadedModel) -> str | None:
    if loaded.kv_bits is not None:
        return "with --kv-bits rows share the shape of their attention"
    others = {type(cache).__name__ for cache in loaded.new_caches() if type(cache) is not KVCache}
    if others:
        return f"the batches of mlx-lm {version('mlx-lm')} with {', '.join(sorted(others))} depend on their rows"
    return None


def _company_is_nothing(loaded: LoadedModel, beat: Beat) -> bool:
    """Whether rows of several lengths have the same logits alone, by twos and all together."""
    prompts = [_noise(tokens + 1, loaded.vocab_size) for tokens in TRIED_TOKENS]
    caches = [loaded.computed(prompt, (), beat).caches for prompt in prompts]
    together = _steps(loaded, prompts, caches)
    for first in range(0, len(prompts), 2):
        pair = _steps(loaded, prompts[first : first + 2], caches[first : first + 2])
        alone = [_steps(loaded, [prompts[row]], [caches[row]]) for row in (first, first + 1)]
        of_all = [mx.stack([step[row] for step in together]) for row in (first, first + 1)]
        of_two = [mx.stack([step[row] for step in pair]) for row in (0, 1)]
        of_one = [mx.stack([step[0] for step in steps]) for steps in alone]
        for three in zip(of_all, of_two, of_one, strict=True):
            if not all(mx.array_equal(three[0], other).item() for other in three[1:]):
                return False
        beat("trying company")
    return True


def _noise(tokens: int, vocab_size: int) -> tuple[int, ...]:
    return tuple((7 + 7919 * place) % vocab_size for place in range(tokens))


def _steps(loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], caches: Sequence[Caches]) -> list[mx.array]:
    """The logits of some steps of rows together, each of shape [rows, vocabulary]; the caches stay as they are."""
    merged = aligned.merge(caches)
    tokens, found = mx.array([prompt[-1] for prompt in prompts]), []
    for _ in range(TRIED_STEPS):
        logits = loaded.model(tokens[:, None], cache=merged)[:, -1]
        tokens = mx.argmax(logits[:, : loaded.vocab_size], axis=-1)
        mx.eval(logits, tokens)
        found.append(logits)
    return found
