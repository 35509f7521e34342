#!/usr/bin/env python3
"""Makes the pinned Python environment that tests and benchmarks compare with.

usage: venv.py LINK   The environment lives in $JOUST_CACHE (default ~/.cache/joust), keyed by its requirements; LINK points at it.
"""
import hashlib
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REQUIREMENTS = os.path.join(HERE, "requirements-tests.txt")
CACHE = os.environ.get("JOUST_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "joust")


def main():
    link = sys.argv[1]
    key = hashlib.sha256(open(REQUIREMENTS, "rb").read()).hexdigest()[:12]
    folder = os.path.join(CACHE, f"venv-{key}-py{sys.version_info.major}{sys.version_info.minor}")
    done = os.path.join(folder, "joust-complete")
    if not os.path.exists(done):
        print(f"venv: making {folder} (3 GB, once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([os.path.join(folder, "bin", "pip"), "install", "--quiet", "-r", REQUIREMENTS], check=True)
        open(done, "w").close()
    if not os.path.islink(link) or os.readlink(link) != folder:
        if os.path.lexists(link):
            os.remove(link)
        os.symlink(folder, link)


if __name__ == "__main__":
    main()
