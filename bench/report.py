"""The table of a run, as Markdown: date, machine, sizes, each figure beside its limit, with the spread."""

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.cases import Plan, Result
from bench.measure import Figures

FILE = Path(__file__).with_name("RESULTS.md")
BEGIN, END = "<!-- table: written by python -m bench -->", "<!-- end of the table -->"
HEAD = (
    *("case", "size", "side", "calls/s", "p50 ms", "p95 ms", "CPU ms a call"),
    *("rate: share of the limit's", "spread", "CPU: limit / product", "goal"),
)


def text(results: Sequence[Result], plan: Plan) -> str:
    """The whole table of a run."""
    return "\n".join([*_facts(plan), "", *_table(results)])


def write(found: str) -> None:
    """Puts the table into bench/RESULTS.md; what people wrote around it stays."""
    old = FILE.read_text() if FILE.exists() else f"# Results\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    after = rest.partition(END)[2]
    FILE.write_text(f"{before}{BEGIN}\n{found}\n{END}{after}")


def _facts(plan: Plan) -> Iterator[str]:
    cores, load = os.cpu_count(), os.getloadavg()
    with Path("/proc/meminfo").open() as file:
        memory = int(file.readline().split()[1]) / 1024**2
    with Path("/proc/cpuinfo").open() as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "?")
    packages = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "psycopg", "sqlalchemy", "nats-py"))
    yield f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    yield f"- Machine: {cores} cores ({model}), {memory:.0f} GB, {system}, {packages}"
    averages = ", ".join(f"{value:.1f}" for value in load)
    yield f"- Load average at the end (1, 5, 15 min): {averages}; generator and servers share the cores"
    yield f"- {plan.rounds} rounds, in each of which every side ran for {plan.seconds:g} s, in turn"
    yield "- Figures are medians; the spread is the least and the most of the rounds' shares of the limit"


def _table(results: Iterable[Result]) -> Iterator[str]:
    yield "| " + " | ".join(HEAD) + " |"
    yield "|" + "|".join(["---"] * 3 + ["---:"] * 7 + ["---"]) + "|"
    for result in results:
        ours, *limits = result.figures
        yield _row(result.case, f"{result.size:,}", ours, "", "", "", _goal(result))
        for limit in limits:
            share, least, most = ours.beside(limit)
            spent = f"{ours.cpu_beside(limit):.0%}" if ours.cpu else "–"
            yield _row("", "", limit, f"{share:.0%}", f"{least:.0%}–{most:.0%}", spent, "")


def _goal(result: Result) -> str:
    return {None: result.goal, True: f"{result.goal}: met", False: f"{result.goal}: **missed**"}[result.met]


def _row(
    case: str, size: str, figures: Figures, share: str, spread: str, spent_beside: str, goal: str
) -> str:
    p50, p95 = (sorted(values)[len(values) // 2] for values in (figures.p50, figures.p95))
    spent = figures.cpu_ms()
    parts = ", ".join(f"{name} {ms:.2f}" for name, ms in spent.items())
    cpu = f"{sum(spent.values()):.2f} ({parts})" if spent else "–"
    failed = f" ({figures.failed} failed)" if figures.failed else ""
    times = (f"{p50:.1f}", f"{p95:.1f}") if p50 else ("–", "–")
    cells = (
        case,
        size,
        figures.name,
        f"{figures.rate:,.0f}{failed}",
        *times,
        cpu,
        share,
        spread,
        spent_beside,
        goal,
    )
    return "| " + " | ".join(cells) + " |"
