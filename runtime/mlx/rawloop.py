"""The limit: forward and argmax with nothing around them. `python -m runtime.mlx.rawloop MODEL ROWS STEPS`."""

import sys
import time
from pathlib import Path

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, make_prompt_cache

from runtime.mlx import loader

PROMPT_TOKENS = 20


def tokens_per_second(model_path: Path, rows: int, steps: int) -> float:
    """Greedy decoding of `rows` equal prompts for `steps` steps, the next one always under way."""
    model = loader.load(model_path, trust_remote_code=False).model
    caches = [BatchKVCache([0] * rows) for _ in make_prompt_cache(model)]
    tokens = mx.argmax(model(mx.ones((rows, PROMPT_TOKENS), mx.int32), cache=caches)[:, -1], axis=-1)
    mx.eval(tokens)
    started_at = time.perf_counter()
    for _ in range(steps):
        following = mx.argmax(model(tokens[:, None], cache=caches)[:, -1], axis=-1)
        mx.async_eval(following)
        tokens.tolist()
        tokens = following
    mx.eval(tokens)
    return rows * steps / (time.perf_counter() - started_at)


if __name__ == "__main__":
    print(tokens_per_second(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
