"""CPU time of processes and all that they started, read from /proc."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def seconds(roots: list[int]) -> float:
    """What these processes and their descendants have used so far, in seconds of one core.

    Children that ended are counted with their parent, so differences stay right while workers come and go.
    """
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    gone: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(entry.name)
        parents[pid] = int(words[1])
        used[pid] = int(words[11]) + int(words[12])
        gone[pid] = int(words[13]) + int(words[14])
    mine = set(roots)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in mine} - mine
        mine |= more
        grown = bool(more)
    return sum(used.get(pid, 0) + gone.get(pid, 0) for pid in mine) / _TICK
