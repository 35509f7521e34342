"""Holds the fixtures of crates/data against transformers, TRL and pyarrow of this environment."""
import os
import subprocess
import sys

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "scripts", "fixtures")


def main():
    failed = [name for name in ("conversations.py", "rows.py") if subprocess.run([sys.executable, os.path.join(FOLDER, name), "--check"]).returncode]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
