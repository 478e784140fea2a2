"""Puts the five checks together, from what the house shows and what the model's files say."""

from pathlib import Path

import anyio
from anyio.to_thread import run_sync

from actors.snapshots import HouseSnapshot, RoomState
from api.context import ApiContext
from api.health.check import Check, CheckStatus, worst
from api.health.dtype import dtype_check
from api.health.installed import Surroundings, surroundings
from api.health.invariance import invariance_check
from api.health.memory import memory_check
from api.health.papers import ModelPapers, read_papers
from api.health.stops import stops_check
from api.health.versions import versions_check
from api.status import health
from api.text.turn_ends import TurnEnds

Json = dict[str, object]

_STATES = {
    RoomState.READY: CheckStatus.UNKNOWN,  # Alone it is no news.
    RoomState.LOADING: CheckStatus.WARNING,
    RoomState.RESTARTING: CheckStatus.ERROR,
}
"""What the state of the engine room does to the whole: while it loads nothing is answered, and a dead one is worse."""


class HealthReport:
    """The checks of one server. What lies on disk is read once, off the event loop, when somebody asks first."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._one_at_a_time = anyio.Lock()
        self._found: tuple[ModelPapers, TurnEnds, Surroundings] | None = None

    async def made(self) -> Json:
        """The reply of GET /health/diagnostics."""
        async with self._one_at_a_time:
            if self._found is None:
                papers = await run_sync(_papers, self._context.model_dir)
                self._found = papers, await self._context.codec.turn_ends(), await run_sync(surroundings)
        return self._reply(self._context.desk.snapshot(), *self._found)

    def _reply(self, house: HouseSnapshot, papers: ModelPapers, ends: TurnEnds, here: Surroundings) -> Json:
        # What was measured of an engine that is dead now says nothing of the one that comes.
        settings, facts = self._context.settings, house.facts if house.room is RoomState.READY else None
        checks = {
            "dtype": dtype_check(settings.dtype, facts, papers),
            "eos_template": stops_check(ends, facts.vocab_size if facts else None),
            "memory_pressure": memory_check(house.monitor, settings),
            "versions": versions_check(here),
            "batch_invariance": invariance_check(house.probe, house.scheduler, settings),
        }
        return {
            "status": worst([_STATES[house.room], *(check.status for check in checks.values())]).value,
            "server": health(house),
            "model": self._context.model_id,
            "uptime_s": round(house.uptime_s, 3),
            "checks": {name: told(check) for name, check in checks.items()},
        }


def told(check: Check) -> Json:
    """A check in JSON's types."""
    return {
        "status": check.status.value,
        "detail": check.detail,
        "mend": check.mend,
        "figures": dict(check.figures),
    }


def _papers(model_dir: Path | None) -> ModelPapers:
    return read_papers(model_dir) if model_dir else ModelPapers()
