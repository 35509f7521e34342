#!/usr/bin/env python3
"""Makes, checks and builds the Python client in clients/python, in a pinned environment of its own.

usage: client.py build                                     regenerates the stubs and the blocking client and builds the wheel into clients/python/dist
       client.py test [--bin FOLDER] [PYTEST_ARGUMENT...]  checks style and types, and runs the tests; those on a real cluster with the programs in FOLDER

The environment lives in $JOUST_CACHE (default ~/.cache/joust), keyed by requirements-client.txt and the version of Python. Where it cannot be
made the tests are skipped and say so, and JOUST_NO_SKIPS=1 makes that a failure.
"""
import argparse
import hashlib
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLIENT = os.path.join(ROOT, "clients", "python")
REQUIREMENTS = os.path.join(ROOT, "scripts", "requirements-client.txt")
CACHE = os.environ.get("JOUST_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "joust")


def environment():
    """Returns the interpreter of the environment, made if it is not there yet; None where the packages cannot be had."""
    key = hashlib.sha256(open(REQUIREMENTS, "rb").read()).hexdigest()[:12]
    folder = os.path.join(CACHE, f"client-{key}-py{sys.version_info.major}{sys.version_info.minor}")
    python = os.path.join(folder, "bin", "python")
    done = os.path.join(folder, "joust-complete")
    if not os.path.exists(done):
        print(f"client: making {folder} (200 MB, once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        if subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS]).returncode:
            return None
        open(done, "w").close()
    return python


def run(python, *arguments):
    """Runs a module in the folder of the client, and ends with its status if it fails."""
    status = subprocess.run([python, "-m", *arguments], cwd=CLIENT).returncode
    if status:
        sys.exit(status)


def build(python):
    """Regenerates, builds the wheel, and imports it in an environment without the sources."""
    subprocess.run([python, "generate.py"], cwd=CLIENT, check=True)
    run(python, "build", "--no-isolation", "--outdir", "dist")
    wheels = [name for name in os.listdir(os.path.join(CLIENT, "dist")) if name.endswith(".whl")]
    newest = max((os.path.join(CLIENT, "dist", name) for name in wheels), key=os.path.getmtime)
    # A wheel is a zip file, so what is in it can be imported as it lies.
    code = "import joust, joust.aio; print('imports', joust.__file__)"
    subprocess.run([python, "-c", code], env=dict(os.environ, PYTHONPATH=newest), cwd="/", check=True)


def test(python, arguments):
    """Checks style and types, and runs the tests; a folder of programs goes to the tests on a real cluster as JOUST_BIN."""
    parser = argparse.ArgumentParser(prog="client.py test", allow_abbrev=False)
    parser.add_argument("--bin", metavar="FOLDER")
    args, arguments = parser.parse_known_args(arguments)
    if args.bin:
        os.environ["JOUST_BIN"] = os.path.abspath(args.bin)
    run(python, "ruff", "format", "--quiet", "--check", ".", "../../examples/by_hand.py")
    run(python, "ruff", "check", "--quiet", ".", "../../examples/by_hand.py")
    run(python, "mypy", "--no-error-summary")
    run(python, "pytest", *arguments)


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in ("build", "test"):
        sys.exit(__doc__)
    python = environment()
    if python is None:
        print("client: 0 passed, 0 failed, 1 skipped (the packages of requirements-client.txt cannot be fetched through pip)")
        sys.exit(1 if os.environ.get("JOUST_NO_SKIPS") or sys.argv[1] == "build" else 0)
    if sys.argv[1] == "build":
        build(python)
    else:
        test(python, sys.argv[2:])


if __name__ == "__main__":
    main()
