#!/usr/bin/env python3
"""Compares joust with transformers on the same folders; runs in the environment that `make venv` makes.

usage: python_tests.py --venv VENV --bin FOLDER_OF_BINARIES

Without the environment nothing is compared: the skipped checks are counted and printed, and JOUST_NO_SKIPS=1 makes that a failure.
"""
import argparse
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, "tests", "python")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", required=True)
    parser.add_argument("--bin", required=True)
    args = parser.parse_args()
    python = os.path.join(args.venv, "bin", "python")
    files = sorted(name for name in os.listdir(FOLDER) if name.startswith("test_"))
    if not os.path.exists(python):
        print(f"python: 0 passed, 0 failed, {len(files)} skipped (no environment: `make venv` makes it, 3 GB)")
        sys.exit(1 if os.environ.get("JOUST_NO_SKIPS") else 0)
    environment = dict(os.environ, JOUST_BIN=os.path.abspath(args.bin), HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    failed = [name for name in files if subprocess.run([python, os.path.join(FOLDER, name)], env=environment, cwd=ROOT).returncode]
    print(f"python: {len(files) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
