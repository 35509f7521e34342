#!/usr/bin/env python3
"""Holds proto/ against buf's lint rules and against proto/baseline.binpb, the messages that released clients know.

usage: proto.py [--baseline]   --baseline writes proto/baseline.binpb anew; do so when a version is released.

buf comes through pip (requirements-buf.txt, pinned) into $JOUST_CACHE (default ~/.cache/joust), once. Where it cannot be fetched the
check is skipped and says so, and JOUST_NO_SKIPS=1 makes that a failure.
"""
import hashlib
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REQUIREMENTS = os.path.join(ROOT, "scripts", "requirements-buf.txt")
CACHE = os.environ.get("JOUST_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "joust")


def buf():
    """Returns the path of buf, fetched if it is not there yet; None where it cannot be had."""
    key = hashlib.sha256(open(REQUIREMENTS, "rb").read()).hexdigest()[:12]
    folder = os.path.join(CACHE, f"buf-{key}")
    program = os.path.join(folder, "bin", "buf")
    if not os.path.exists(program):
        print("proto: fetching buf (20 MB, once)", flush=True)
        staged = f"{folder}.{os.getpid()}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", staged, "-r", REQUIREMENTS]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
            return None
        if not os.path.exists(program):
            os.rename(staged, folder)
    return program


def main():
    program = buf()
    if program is None:
        print("proto: 0 passed, 0 failed, 2 skipped (buf cannot be fetched through pip)")
        sys.exit(1 if os.environ.get("JOUST_NO_SKIPS") else 0)
    if "--baseline" in sys.argv[1:]:
        sys.exit(subprocess.run([program, "build", "--exclude-source-info", "-o", "baseline.binpb"], cwd=os.path.join(ROOT, "proto")).returncode)
    checks = (["lint"], ["breaking", "--against", "baseline.binpb"])
    failed = [check for check in checks if subprocess.run([program, *check], cwd=os.path.join(ROOT, "proto")).returncode]
    if failed:
        print(f"proto: {len(checks) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
