"""`python -m bench`: measures on a stack of its own, prints a table, and writes bench/RESULTS.md."""

import argparse
import asyncio
import runpy
import sys
import tempfile
from pathlib import Path

from bench import data, report, stack
from bench.cases import CASES, ONCE, Bench, Plan, Result

SIZES = (10_000, 100_000)
# Modules that measure by themselves, with arguments and results of their own: `python -m bench orders 2000`.
APART = ("search", "orders", "activities", "imports", "exports", "loyalty", "mixed")


def main() -> None:
    """Reads the arguments and runs."""
    if sys.argv[1:2] and sys.argv[1] in APART:
        runpy.run_module(f"bench.{sys.argv.pop(1)}", run_name="__main__")
        return
    arguments = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    arguments.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help=f"of {', '.join(CASES)} (default: all); or one of {', '.join(APART)} with arguments of its own",
    )
    arguments.add_argument("--sizes", default=",".join(map(str, SIZES)), help="customers in the database")
    arguments.add_argument("--rounds", type=int, default=5, help="how often the sides take turns")
    arguments.add_argument("--seconds", type=float, default=4.0, help="of one side in one round")
    arguments.add_argument("--print-only", action="store_true", help="leave bench/RESULTS.md alone")
    given = arguments.parse_args()
    unknown = sorted(set(given.cases) - set(CASES))
    if unknown:
        arguments.error(f"no such case: {', '.join(unknown)}")
    sizes = sorted(int(size) for size in given.sizes.split(","))
    plan = Plan(given.rounds, given.seconds)
    results = asyncio.run(run(given.cases or list(CASES), sizes, plan))
    text = report.text(results, plan)
    print("\n" + text)
    if not given.print_only:
        report.write(text)


async def run(cases: list[str], sizes: list[int], plan: Plan) -> list[Result]:
    """The results of the cases at each size, on one stack whose tenant grows from size to size."""
    results: list[Result] = []
    with (
        tempfile.TemporaryDirectory(prefix="regulars-bench-") as folder,
        stack.child("bench.load", {}) as load,
    ):
        async with stack.running() as found:
            bench = Bench(found, plan, Path(folder), await data.versions(found), load, [])
            for size in sizes:
                print(f"Seeding up to {size:,} customers …", flush=True)
                bench.ids += await data.seed(found, range(len(bench.ids), size))
                for name in cases:
                    if name in ONCE and size != sizes[0]:
                        continue
                    print(f"Measuring {name} …", flush=True)
                    results.append(await asyncio.to_thread(CASES[name], bench))
    return results


if __name__ == "__main__":
    main()
