"""One figure beside its limit: alternating rounds, medians, and how far the rounds lie apart."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import cpu

Answer = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """What one side of a comparison does in one round, and whose CPU it uses (roots of process trees)."""

    name: str
    run: Callable[[], Answer]
    processes: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass
class Figures:
    """The rounds of one side."""

    name: str
    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p95: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    calls: int = 0
    failed: int = 0

    @property
    def rate(self) -> float:
        """Calls per second, median of the rounds."""
        return statistics.median(self.rates)

    def cpu_ms(self) -> dict[str, float]:
        """Milliseconds of CPU per call, by process, median of the rounds."""
        return {name: statistics.median(found) for name, found in self.cpu.items()}

    def cpu_beside(self, limit: "Figures") -> float:
        """The limit's CPU per call as a share of its own, over all processes: 1 would be no cost beyond it."""
        mine, theirs = sum(self.cpu_ms().values()), sum(limit.cpu_ms().values())
        return theirs / mine if mine else 0.0

    def beside(self, limit: "Figures") -> tuple[float, float, float]:
        """Its share of the limit's rate, round by round: median, least, most."""
        shares = [mine / theirs for mine, theirs in zip(self.rates, limit.rates, strict=True)]
        return statistics.median(shares), min(shares), max(shares)


def alternating(sides: Sequence[Side], rounds: int) -> list[Figures]:
    """Runs all sides in turn, `rounds` times. What others do to the machine meanwhile meets all alike."""
    found = [Figures(side.name) for side in sides]
    for _ in range(rounds):
        for side, figures in zip(sides, found, strict=True):
            before = {name: cpu.seconds(list(pids)) for name, pids in side.processes.items()}
            began = time.perf_counter()
            answer = side.run()
            wall = time.perf_counter() - began
            # The generator's warm-up is not counted in its calls, but it is in the CPU.
            done = answer["calls"] * (answer.get("work_seconds", wall) / answer["seconds"])
            figures.rates.append(answer["calls"] / answer["seconds"])
            figures.p50.append(answer.get("p50", 0.0))
            figures.p95.append(answer.get("p95", 0.0))
            figures.calls += answer["calls"]
            figures.failed += answer.get("failed", 0)
            for name, pids in side.processes.items():
                spent = cpu.seconds(list(pids)) - before[name]
                figures.cpu.setdefault(name, []).append(spent / max(done, 1) * 1000)
    return found
