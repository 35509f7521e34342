#!/usr/bin/env python3
"""The memory that `joust run --dry-run` estimates beside the peak that the run takes: anonymous memory above that of the start, of all its processes.

usage: memory.py JOUST RUN_FILE [--set KEY=VALUE ..]
prints: joust estimate_mib=.. measured_mib=.. ratio=..
"""
import os
import re
import subprocess
import sys
import tempfile
import time


def anonymous(pid):
    """Returns a process's anonymous memory in KiB; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            found = re.search(r"RssAnon:\s+(\d+)", file.read())
            return int(found.group(1)) if found else 0
    except (FileNotFoundError, ProcessLookupError):
        return 0


def family(pid):
    """Returns the processes that descend from one, with it."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [pid] + [own for child in file.read().split() for own in family(int(child))]
    except FileNotFoundError:
        return []


def main():
    joust, run, *more = sys.argv[1:]
    told = subprocess.run([joust, "run", run, "--dry-run", *more], check=True, capture_output=True, text=True)
    estimate = float(re.findall(r"# at most at once\s+([\d.]+) MiB", told.stdout + told.stderr)[-1])
    with tempfile.TemporaryDirectory() as out:
        process = subprocess.Popen([joust, "run", run, *more, "--set", f'output.dir="{out}/run"'],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        start, peak = None, 0
        while process.poll() is None:
            now = sum(anonymous(pid) for pid in family(process.pid))
            start = now if start is None else start
            peak = max(peak, now)
            time.sleep(0.01)
        if process.returncode:
            sys.exit(process.stderr.read())
    measured = (peak - start) / 1024
    print(f"joust estimate_mib={estimate:.0f} measured_mib={measured:.0f} ratio={estimate / measured:.2f}")


if __name__ == "__main__":
    main()
