"""One round of probes: what has to run, what came of it, and what that tells."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from actors import messages as m
from actors.policies.agreement import compare, together
from actors.policies.probing import MOST_CANDIDATE_TOKENS, PROBE_TOKENS, Run, passes
from actors.snapshots import Tally
from runtime.types import DivergenceCause, RequestId, Sampling, TokenOutput

GREEDY = Sampling(max_tokens=PROBE_TOKENS, temperature=0.0, top_logprobs=0)
"""Without stop ids: the longer the output, the more it tells."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request of the round is to be like."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    apart: bool
    fresh: bool
    leaves_kv: bool


@dataclass(slots=True)
class Round:
    """Pass for pass, until all has run."""

    prompts: tuple[tuple[int, ...], ...]
    candidates: tuple[m.ProbeCandidate, ...]
    in_company: bool
    _passes: list[tuple[Run, ...]] = field(init=False)
    _open: dict[RequestId, Run] = field(default_factory=dict)
    _finished: list[tuple[Run, m.Finished]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.candidates = tuple(_cut(candidate) for candidate in self.candidates)
        self._passes = list(passes(len(self.prompts), len(self.candidates), in_company=self.in_company))

    @property
    def open(self) -> tuple[RequestId, ...]:
        """Requests of the pass under way that have not finished."""
        return tuple(self._open)

    @property
    def is_over(self) -> bool:
        return not self._open and not self._passes

    def next_pass(self, names: Iterable[RequestId]) -> dict[RequestId, Wish]:
        """The next pass, if the last one is done: a wish for each of its runs, by a name of `names`."""
        if self._open or not self._passes:
            return {}
        self._open = dict(zip(names, self._passes.pop(0), strict=False))
        return {name: self._wish(run) for name, run in self._open.items()}

    def _wish(self, run: Run) -> Wish:
        if run.cause is DivergenceCause.TRAFFIC:
            candidate = self.candidates[run.subject]
            return Wish(candidate.prompt_ids, candidate.sampling, apart=True, fresh=True, leaves_kv=False)
        company, cache = run.cause is DivergenceCause.COMPANY, run.cause is DivergenceCause.CACHE
        prompt = self.prompts[run.subject]
        return Wish(prompt, GREEDY, apart=not company, fresh=not cache, leaves_kv=not company)

    def finish(self, finished: m.Finished) -> None:
        """One of the requests has been answered."""
        if run := self._open.pop(finished.request_id, None):
            self._finished.append((run, finished))

    def tallies(self) -> dict[DivergenceCause, Tally]:
        """What the runs tell, by cause; a cause of which nothing could be compared is missing."""
        told = {cause: self._compared(cause) for cause in DivergenceCause}
        return {cause: tallied for cause, tallied in told.items() if tallied}

    def _compared(self, cause: DivergenceCause) -> Tally | None:
        alone = {run.subject: each.tokens for run, each in self._finished if run.cause is None}
        if cause is DivergenceCause.TRAFFIC:
            alone = {n: tuple(map(TokenOutput, each.output_ids)) for n, each in enumerate(self.candidates)}
        runs = [(run.subject, each.tokens) for run, each in self._finished if run.cause is cause and _tells(run, each)]
        if not runs:
            return None
        told = together([compare(alone[subject], tokens) for subject, tokens in runs])
        return Tally(
            prompts=len(dict(runs)),
            compared_tokens=told.places,
            agreement=told.same / told.places,
            first_difference=told.first_difference,
            largest_logprob_difference=told.largest_logprob_difference,
        )


def _tells(run: Run, finished: m.Finished) -> bool:
    """What the cache served nothing of tells nothing of the cache."""
    return run.cause is not DivergenceCause.CACHE or finished.usage.cached_tokens > 0


def _cut(candidate: m.ProbeCandidate) -> m.ProbeCandidate:
    output_ids = candidate.output_ids[:MOST_CANDIDATE_TOKENS]
    sampling = replace(candidate.sampling, max_tokens=len(output_ids))
    return replace(candidate, output_ids=output_ids, sampling=sampling)
