"""Holds the fixtures of chat templates against Jinja2, transformers and Python of this environment."""
import os
import subprocess
import sys

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "scripts", "fixtures")


def main():
    scripts = ("jinja.py", "unicode_tables.py")
    failed = [name for name in scripts if subprocess.run([sys.executable, os.path.join(FOLDER, name), "--check"]).returncode]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
