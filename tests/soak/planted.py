"""Troupe's command line with a fault in its engine, which SIGUSR1 turns on and off: company changes what rows say.

`python -m tests.soak.planted serve --engine thread …`: the engine has to live in this process.
"""

import signal
import sys

import mlx.core as mx

import cli
from runtime.mlx.batch import DecodeBatch


def main() -> int:
    turned_on = False

    def turn(_number: int, _frame: object) -> None:
        nonlocal turned_on
        turned_on = not turned_on

    signal.signal(signal.SIGUSR1, turn)
    forward = DecodeBatch._forward

    def disturbed(batch: DecodeBatch, tokens: mx.array) -> mx.array:
        """Every other row of a batch of several has its best token thrown out, by now and then."""
        logits = forward(batch, tokens)
        if turned_on and len(batch) > 1:
            best = mx.argmax(logits[1::2], axis=-1, keepdims=True)
            logits[1::2] = mx.put_along_axis(logits[1::2], best, mx.array(-1e4, dtype=logits.dtype), axis=-1)
        return logits

    DecodeBatch._forward = disturbed  # type: ignore[method-assign,assignment]
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
