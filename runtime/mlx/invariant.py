"""Makes a model batch-invariant: the tokens of a row are the same whatever else runs, bit for bit.

Three things of a row's step depend on its company elsewhere: the kernel its products with weights are computed by
(steady.py), the shape of its attention (aligned.py), and where its prompt is cut into chunks (LoadModel.chunk_tokens).
The rest is computed element by element, or row by row. That this is all there is, is not assumed: it is tried.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from runtime.engine.host import Beat
from runtime.errors import ModelError
from runtime.mlx import aligned, steady
from runtime.mlx.caches import Caches, merge
from runtime.mlx.loader import LoadedModel

TRIED_TOKENS = (1, 3, 20, 63, 64, 65, 130, 190)
"""Lengths of the prompts that it is tried with: of one stretch and of several."""
TRIED_STEPS = 3
COPIES = 8
"""Of each row in a crowd: more rows than are computed at once (steady.py), and than mixtures of experts sort."""
MOST_APART = 0.2
"""How far logits may be from those with mlx-lm's own caches, as a part of what they spread over: rounding in any type
is far below it, attention to what is not there far above."""
IMPOSSIBLE = "--batch-invariant is not possible with this model"


def made_invariant(loaded: LoadedModel, beat: Beat) -> LoadedModel:
    """The model, changed in place.

    Raises:
        ModelError: it cannot be; the text says why.
    """
    if reason := _refusal(loaded):
        raise ModelError(f"{IMPOSSIBLE}: {reason}")
    beat("trying products")
    aligned.teach(loaded.model)
    steady.steady(loaded.model)
    loaded = replace(loaded, invariant=True)
    beat("trying company")
    with _blaming_the_model():
        prompts = [_noise(tokens + 1, loaded.vocab_size) for tokens in TRIED_TOKENS]
        caches = [loaded.computed(prompt, (), beat).caches for prompt in prompts]
        if not _attends_as_ever(loaded, prompts, caches):
            raise ModelError(f"{IMPOSSIBLE}: its code attends in a way of its own")
        if not _company_is_nothing(loaded, prompts, caches, beat):
            raise ModelError(
                f"{IMPOSSIBLE} on this device: "
                "its steps give other results in company, although products and attention do not"
            )
    return loaded


@contextmanager
def _blaming_the_model() -> Iterator[None]:
    """Every architecture is code of its own in mlx-lm, and may ask of caches what these cannot do."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{IMPOSSIBLE}: {type(error).__name__}: {error}") from error


def _refusal(loaded: LoadedModel) -> str | None:
    if loaded.kv_bits is not None:
        return "with --kv-bits rows share the shape of their attention"
    others = {type(cache).__name__ for cache in loaded.new_caches() if type(cache) is not KVCache}
    if others:
        return f"the batches of mlx-lm {version('mlx-lm')} with {', '.join(sorted(others))} depend on their rows"
    return None


def _attends_as_ever(loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], caches: Sequence[Caches]) -> bool:
    """Whether a step comes to about what it does with mlx-lm's own caches. A model that does its attention by itself
    would attend to the room behind its rows, or forget what it masks, the same in any company."""
    for prompt, own in zip(prompts, caches, strict=True):
        here = _logits(loaded, prompt[-1], merge([own], are_aligned=True))
        there = _logits(loaded, prompt[-1], merge([own]))
        near = mx.linalg.norm(here - there) <= MOST_APART * mx.linalg.norm(there - there.mean())
        if not near.item():
            return False
    return True


def _logits(loaded: LoadedModel, token: int, merged: Caches) -> mx.array:
    logits: mx.array = loaded.model(mx.array([[token]]), cache=merged)[:, -1]
    return logits.astype(mx.float32)


def _company_is_nothing(
    loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], caches: Sequence[Caches], beat: Beat
) -> bool:
    """Whether rows of several lengths have the same logits alone, by twos, all together and in a crowd."""
    together = _steps(loaded, prompts, caches)
    crowd = _steps(
        loaded, [each for each in prompts for _ in range(COPIES)], [c for c in caches for _ in range(COPIES)], 1
    )
    if not all(mx.array_equal(crowd[0][row], together[0][row // COPIES]).item() for row in range(len(crowd[0]))):
        return False
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


def _steps(
    loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], caches: Sequence[Caches], steps: int = TRIED_STEPS
) -> list[mx.array]:
    """The logits of some steps of rows together, each of shape [rows, vocabulary]; the caches stay as they are."""
    merged = aligned.merge(caches)
    tokens, found = mx.array([prompt[-1] for prompt in prompts]), []
    for _ in range(steps):
        logits = loaded.model(tokens[:, None], cache=merged)[:, -1]
        tokens = mx.argmax(logits[:, : loaded.vocab_size], axis=-1)
        mx.eval(logits, tokens)
        found.append(logits)
    return found
