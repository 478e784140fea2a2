"""DivergenceProbe: whether a request is answered the same alone, in company and from the cache."""

import logging
from collections import deque
from itertools import count
from math import inf
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.probing import MOST_CANDIDATES, MOST_PROMPTS, PROBE_TOKENS, patience_s
from actors.probe_round import Round, Wish
from actors.replies import ReplySink
from actors.snapshots import ProbeSnapshot, Tally
from runtime.types import CancelCause, DivergenceCause, RequestId, RuntimeMode

log = logging.getLogger("troupe.divergence_probe")

SALT = "\0divergence"
"""No client can have it."""
CURABLE = (DivergenceCause.COMPANY, DivergenceCause.TRAFFIC)
"""What running one at a time can help against."""


class DivergenceProbe(Actor[m.ProbeWord]):
    """Runs rounds of probes in the background, and tells the Scheduler what each comes to."""

    def __init__(
        self,
        *,
        name: str,
        mailbox: Ref[m.ProbeReplied],
        scheduler: Ref[m.Enqueue | m.Cancel | m.DivergenceMeasured],
        mode: RuntimeMode,
        max_concurrency: int,
        interval_s: float,
        threshold: float,
    ) -> None:
        """`name` is what the names of its requests begin with: another one in each life."""
        self._names = (RequestId(f"{name}-{number}") for number in count(1))
        self._mailbox = mailbox
        self._scheduler = scheduler
        self._may_have_company = mode is not RuntimeMode.SIMPLE and max_concurrency > 1
        self._interval_s = interval_s
        self._threshold = threshold
        self._room: m.EngineRoomOpened | None = None
        self._prompts: tuple[tuple[int, ...], ...] = ()
        self._candidates: deque[m.ProbeCandidate] = deque(maxlen=MOST_CANDIDATES)
        self._round: Round | None = None
        self._now = 0.0
        self._began_at = -inf
        """When the last round did."""
        self._ended_at: float | None = None
        self._rounds = self._given_up = 0
        self._tallies: dict[DivergenceCause, Tally] = {}
        self._low: set[DivergenceCause] = set()
        """Causes whose agreement was below the threshold when they were last compared."""
        self._diverged = False

    def receive(self, message: m.ProbeWord) -> None:
        match message:
            case m.Tick(now):
                self._now = now
                self._mind_the_time()
            case m.EngineRoomOpened():
                self._open(message)
            case m.ProbePrompts(prompts):
                self._prompts = prompts[:MOST_PROMPTS]
            case m.ProbeCandidate():
                self._candidates.append(message)
            case m.ProbeReplied(reply):
                self._heard(reply)
            case _:
                assert_never(message)

    def _open(self, opening: m.EngineRoomOpened) -> None:
        """Of what was under way nothing is left. The Scheduler is another one."""
        if opening == self._room:
            return  # Said twice, to be sure.
        self._room = opening
        if self._round:
            self._give_up("the engine died")
        if not (self._may_have_company and opening.facts.batchable):
            log.info("answers in company are not compared: requests run one at a time")
        if self._rounds:
            self._scheduler.tell(m.DivergenceMeasured(self._diverged))

    def _mind_the_time(self) -> None:
        if self._round is None and self._now >= self._began_at + self._interval_s:
            self._begin()
        elif self._round and self._now > self._began_at + patience_s(self._interval_s):
            self._give_up("it took too long")

    def _begin(self) -> None:
        if self._room is None or not self._prompts:
            return
        facts, candidates = self._room.facts, tuple(self._candidates)
        self._began_at = self._now
        self._candidates.clear()
        self._round = Round(
            tuple(prompt for prompt in self._prompts if len(prompt) + PROBE_TOKENS <= facts.context_tokens),
            tuple(one for one in candidates if len(one.prompt_ids) + len(one.output_ids) <= facts.context_tokens),
            in_company=self._may_have_company and facts.batchable,
        )
        self._go_on(self._round)

    def _go_on(self, round_: Round) -> None:
        if self._room:
            for name, wish in round_.next_pass(self._names).items():
                self._scheduler.tell(m.Enqueue(self._room.epoch, self._request(name, wish), ()))
        if round_.is_over:
            self._end(round_)

    def _request(self, name: RequestId, wish: Wish) -> m.Request:
        return m.Request(
            request_id=name,
            prompt_ids=wish.prompt_ids,
            sampling=wish.sampling,
            arrived_at=self._now,
            deadline=inf,
            sink=ReplySink(lambda reply: self._mailbox.tell(m.ProbeReplied(reply)), capacity=0),
            report_every=wish.sampling.max_tokens + 1,
            cache_salt=SALT,
            background=True,
            apart=wish.apart,
            fresh=wish.fresh,
            leaves_kv=wish.leaves_kv,
        )

    def _heard(self, reply: m.Reply) -> None:
        """With no room for more, a sink brings the last word alone."""
        if self._round is None or reply.request_id not in self._round.open:
            return  # Of a round that was given up.
        if isinstance(reply, m.Finished):
            self._round.finish(reply)
            self._go_on(self._round)
        elif isinstance(reply, m.LastWord):
            self._give_up(reply.error if isinstance(reply, m.Failed) else "one of its requests was ended")

    def _give_up(self, why: str) -> None:
        log.info("a round of probes came to no result: %s", why)
        under_way, self._round = self._round, None
        self._given_up += 1
        for name in under_way.open if under_way else ():
            self._scheduler.tell(m.Cancel(name, CancelCause.OPERATOR))

    def _end(self, round_: Round) -> None:
        tallies = round_.tallies()
        if not tallies:
            self._give_up("there was nothing to compare")
            return
        self._round = None
        self._rounds += 1
        self._ended_at = self._now
        self._tallies |= tallies
        for cause, tally in tallies.items():
            self._judge(cause, tally)
        self._diverged = any(cause in tallies and cause in self._low for cause in CURABLE)
        self._scheduler.tell(m.DivergenceMeasured(self._diverged))

    def _judge(self, cause: DivergenceCause, tally: Tally) -> None:
        """Say it when it begins, and when it is over."""
        is_low = tally.agreement < self._threshold
        if is_low is not (cause in self._low):
            log.log(logging.WARNING if is_low else logging.INFO, _said(cause, tally, self._threshold))
        self._low = self._low | {cause} if is_low else self._low - {cause}

    def snapshot(self) -> ProbeSnapshot:
        return ProbeSnapshot(
            rounds=self._rounds,
            under_way=self._round is not None,
            diverged=self._diverged,
            threshold=self._threshold,
            tallies=dict(self._tallies),
            ended_at=self._ended_at,
            given_up=self._given_up,
        )


_COMPARED = {
    DivergenceCause.COMPANY: "in company and alone",
    DivergenceCause.CACHE: "from the cache and without it",
    DivergenceCause.TRAFFIC: "of the traffic, computed again alone,",
}


def _said(cause: DivergenceCause, tally: Tally, threshold: float) -> str:
    """A line for the log."""
    told = [
        f"answers {_COMPARED[cause]} agree in {tally.agreement:.4f} of {tally.compared_tokens} tokens of "
        f"{tally.prompts} prompts (threshold {threshold:g})"
    ]
    if tally.first_difference is not None:
        told.append(f"the first difference is at place {tally.first_difference}")
    if tally.largest_logprob_difference is not None:
        told.append(f"log-probabilities differ by up to {tally.largest_logprob_difference:.3g}")
    return "; ".join(told)
