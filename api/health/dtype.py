"""Whether the type that the model computes in suits the device and the weights."""

from collections.abc import Iterator

from api.health.check import Check, CheckStatus, Finding, together
from api.health.papers import ModelPapers
from runtime.types import ModelFacts

SIGNIFICANT_BITS = {"float32": 24, "float16": 11, "bfloat16": 8}

SLOWER_ON_CPU = {"float16": 45, "bfloat16": 28}
"""How many times slower than float32: a product of 256×1536 and 1536×576 by mlx 0.32.4 with OpenBLAS, two x86-64 cores.
MLX has BLAS multiply float32 alone."""


def dtype_check(asked: str, facts: ModelFacts | None, papers: ModelPapers) -> Check:
    """`asked` is --dtype, `papers` what the model directory says."""
    figures = {
        "device": facts.device if facts else None,
        "computed": facts.dtype if facts else None,
        "asked": asked,
        "declared": papers.declared_dtype,
        "stored": papers.stored_dtype,
        "quantised_bits": papers.quantised_bits,
    }
    if facts is None or facts.dtype not in SIGNIFICANT_BITS:
        return Check(CheckStatus.UNKNOWN, _unknown(facts), None, figures)
    fine = f"The model computes in {facts.dtype} on the {_named(facts.device)}, and loses nothing of its weights by it."
    return together(_findings(asked, facts, papers), fine=fine, figures=figures)


def _unknown(facts: ModelFacts | None) -> str:
    return f"The model computes in {facts.dtype}, which is not known here." if facts else "The model is still loading."


def _named(device: str) -> str:
    return {"cpu": "CPU", "metal": "GPU (Metal)", "cuda": "GPU (CUDA)"}.get(device, device)


def _findings(asked: str, facts: ModelFacts, papers: ModelPapers) -> Iterator[Finding]:
    computed = facts.dtype
    if facts.device == "cpu" and computed in SLOWER_ON_CPU:
        times = SLOWER_ON_CPU[computed]
        slow = f"{computed} on the CPU: products of matrices are about {times} times slower than in float32."
        yield Finding(CheckStatus.WARNING, slow, "--dtype float32, or --dtype auto")
    if asked not in ("auto", computed):
        other = f"--dtype {asked} was asked for, and the engine computes in {computed}."
        yield Finding(CheckStatus.WARNING, other, "--dtype auto, if that is what is meant")
    if computed == "float16" and "bfloat16" in (papers.stored_dtype, papers.declared_dtype):
        over = "The model is made for bfloat16; in float16 what exceeds 65504 overflows, and answers can be nonsense."
        yield Finding(CheckStatus.WARNING, over, f"--dtype {'float32' if facts.device == 'cpu' else 'bfloat16'}")
    stored = papers.stored_dtype
    if stored and SIGNIFICANT_BITS.get(stored, 0) > SIGNIFICANT_BITS[computed]:
        bits = f"from {SIGNIFICANT_BITS[stored]} significant bits to {SIGNIFICANT_BITS[computed]}"
        yield Finding(
            CheckStatus.WARNING,
            f"The weights are stored in {stored} and rounded to {computed}, {bits}: answers change.",
            f"--dtype {stored}",
        )
