"""What a round of probes is made of, and what may be sampled of the real traffic."""

from dataclasses import dataclass

from runtime.types import DivergenceCause, Sampling

MOST_PROMPTS = 16
MOST_CANDIDATES = 8
"""How many samples of the traffic wait for the next round."""
MOST_CANDIDATE_TOKENS = 128
"""Output tokens that are computed again of each; the output is greedy, so its beginning has to be the same."""
PROBE_TOKENS = 32
"""Output tokens of each probe."""
COMPANY_ROWS = 8
"""At least so many rows are a company, and each prompt has a row twice."""
MOST_AT_ONCE = 32
"""Requests of one pass, however many prompts and candidates there are."""
LEAST_ROUND_S = 60.0
"""A round has at least so long, however short the interval is."""


@dataclass(frozen=True, slots=True)
class Run:
    """One request of a round: one run of a prompt or of a candidate."""

    cause: DivergenceCause | None
    """What comparing it tells of; None: it is what the other runs of the prompt are compared with."""
    subject: int
    """Which of the prompts; which of the candidates, if the cause is TRAFFIC."""


def passes(prompts: int, candidates: int, *, in_company: bool) -> tuple[tuple[Run, ...], ...]:
    """What is to run, one pass after the other, for so many `prompts` (at most MOST_PROMPTS) and `candidates` (at most
    MOST_CANDIDATES). The runs alone leave the prefixes that those from the cache begin with."""
    each = range(prompts)
    alone = [Run(None, number) for number in each] + [Run(DivergenceCause.TRAFFIC, n) for n in range(candidates)]
    cached = [Run(DivergenceCause.CACHE, number) for number in each]
    copies = max(2, -(-COMPANY_ROWS // max(prompts, 1)))
    company = [Run(DivergenceCause.COMPANY, number) for _ in range(copies) for number in each] if in_company else []
    return tuple(tuple(runs) for runs in (alone, cached, company) if runs)


def patience_s(interval_s: float) -> float:
    """How long a round may take before it is given up."""
    return max(LEAST_ROUND_S, interval_s)


def is_reproducible(sampling: Sampling) -> bool:
    """Whether it always gives the same tokens, and is cheap to compute again: greedy, and without a grammar."""
    return (sampling.temperature == 0 or sampling.top_k == 1) and not sampling.grammar
