"""Whether what a request is answered depends on its company, as far as the divergence probe has seen."""

from collections.abc import Iterator, Mapping

from actors.snapshots import ProbeSnapshot, SchedulerSnapshot, Tally
from api.health.check import Check, CheckStatus, Finding, together
from runtime.settings import Settings
from runtime.types import DivergenceCause

_CAUSES = {
    DivergenceCause.COMPANY: "alone and in company",
    DivergenceCause.CACHE: "from an empty KV cache and from a kept prefix",
    DivergenceCause.TRAFFIC: "as clients were answered and alone",
}


def invariance_check(probe: ProbeSnapshot | None, scheduler: SchedulerSnapshot | None, settings: Settings) -> Check:
    """`probe` is None without --batch-divergence-monitor, `scheduler` while no engine room lives."""
    serialised = scheduler is not None and scheduler.serialised
    figures: dict[str, object] = {
        "monitored": probe is not None,
        "batch_invariant": settings.batch_invariant,
        "deterministic": settings.deterministic,
        "serialized": serialised,
        "mode": scheduler.mode.value if scheduler else None,
        "action": settings.batch_divergence_action.value,
        "threshold": settings.batch_divergence_threshold,
        "rounds": probe.rounds if probe else 0,
        "given_up": probe.given_up if probe else 0,
        "agreement": {cause.value: told(tally) for cause, tally in probe.tallies.items()} if probe else {},
    }
    if probe is None:
        detail = "Nobody compares what is answered alone and in company."
        return Check(CheckStatus.UNKNOWN, detail, "--batch-divergence-monitor", figures)
    if not probe.tallies:
        return Check(CheckStatus.UNKNOWN, _no_result(probe), None, figures)
    return together(_findings(probe, settings, serialised), fine=_fine(probe), figures=figures)


def told(tally: Tally) -> Mapping[str, object]:
    """A tally in JSON's types."""
    return {
        "prompts": tally.prompts,
        "compared_tokens": tally.compared_tokens,
        "agreement": round(tally.agreement, 4),
        "first_difference": tally.first_difference,
        "largest_logprob_difference": tally.largest_logprob_difference,
    }


def _no_result(probe: ProbeSnapshot) -> str:
    if probe.given_up:
        return f"No comparison has come to a result yet; {probe.given_up} were given up."
    return "The first comparison has not come to a result yet."


def _fine(probe: ProbeSnapshot) -> str:
    least = min(tally.agreement for tally in probe.tallies.values())
    return f"The tokens of the last comparison agree to {least:.4g}, at least {probe.threshold:g} is asked for."


def _findings(probe: ProbeSnapshot, settings: Settings, serialised: bool) -> Iterator[Finding]:
    for cause, tally in probe.tallies.items():
        if tally.agreement < probe.threshold:
            yield _finding(cause, tally, probe.threshold, settings, serialised)


def _finding(cause: DivergenceCause, tally: Tally, threshold: float, settings: Settings, serialised: bool) -> Finding:
    """What is one at a time now is answered as if alone, so there it is no error any more. Running one at a time does
    nothing about the cache."""
    differ = (
        f"Of the tokens {_CAUSES[cause]} {tally.agreement:.4g} agree, {threshold:g} are asked for: "
        f"{tally.compared_tokens} tokens of {tally.prompts} prompts, the first difference at {tally.first_difference}."
    )
    if cause is DivergenceCause.CACHE:
        mend = "--cache-memory-mb 0" if settings.batch_invariant else "--batch-invariant, or --cache-memory-mb 0"
        return Finding(CheckStatus.WARNING, differ, mend)
    if serialised:
        return Finding(CheckStatus.WARNING, f"{differ} Sequences run one at a time until it is over.")
    mend = "--batch-divergence-action serialize"
    if not settings.batch_invariant:
        mend = f"--batch-invariant, or {mend}"
    return Finding(CheckStatus.ERROR, differ, mend)
