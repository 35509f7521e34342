#!/usr/bin/env python3
"""Makes the generated parts of the client: the stubs of proto/ (src/joust/_gen) and the blocking client (src/joust/_sync).

usage: generate.py [--check]   --check writes nothing and fails, with the names, where a file is not what it would be made as.

The stubs come from grpcio-tools and mypy-protobuf (scripts/requirements-client.txt pins them). The blocking client is the text of
src/joust/aio with the words of asyncio replaced by theirs, so that there is one source of both.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto"
SOURCE = HERE / "src" / "joust"
HEAD = "# Made by generate.py{}; do not edit.\n"

# Messages, enumerations and their values as .pyi files declare them; stubs and servicers as the .py files do.
PUBLIC = {
    "_pb2.pyi": re.compile(r"^(?:class (\w+)\(|([A-Z]\w*): [A-Z]\w*$)", re.MULTILINE),
    "_pb2_grpc.py": re.compile(r"^(?:class (\w+(?:Stub|Servicer))\b|def (add_\w+))", re.MULTILINE),
}

BLOCKING = [
    (r"\bjoust\.aio\b", "joust._sync"),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"\basync (def|for|with) ", r"\1 "),
    (r"\bawait ", ""),
    (r"\bAsync(Iterator|Iterable)\b", r"\1"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"^import grpc\.aio\n", ""),
]


def blocking(text: str, name: str) -> str:
    """Returns the blocking form of a module of joust.aio."""
    for pattern, replacement in BLOCKING:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    text = text.replace("import asyncio\n", "" if "import time\n" in text else "import time\n")
    return HEAD.format(f" from aio/{name}") + text


def stubs(folder: Path) -> dict[str, str]:
    """Runs the compiler into a scratch folder and returns the files by their path in src/joust/_gen."""
    protos = sorted(str(path) for path in PROTO.rglob("*.proto"))
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    # The plugin lies beside the interpreter, which need not be on PATH.
    plugin = Path(sys.executable).with_name("protoc-gen-mypy_grpc")
    outputs += [f"--plugin=protoc-gen-mypy_grpc={plugin}", f"--mypy_grpc_out=quiet:{folder}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *outputs, *protos], check=True)
    made = {}
    for path in sorted((folder / "joust").rglob("*.py*")):
        text = path.read_text()
        if "_pb2_grpc" in path.name and "Stub" not in text:
            continue  # a file without services
        text = re.sub(r"^from joust\.", "from joust._gen.", text, flags=re.MULTILINE)
        made[str(path.relative_to(folder / "joust"))] = text
    folders = {parent for name in made for parent in Path(name).parents}
    made.update({str(folder / "__init__.py"): HEAD.format(" from proto/") + names(folder, made) for folder in folders})
    return made


def names(folder: Path, made: dict[str, str]) -> str:
    """Returns the imports that give a package all names of its files."""
    lines = []
    for name in sorted(name for name in made if Path(name).parent == folder):
        for ending, public in PUBLIC.items():
            if name.endswith(ending):
                module = ".".join(["joust", "_gen", *Path(name).with_suffix("").parts])
                found = sorted(first or second for first, second in public.findall(made[name]))
                lines += [f"from {module} import {word} as {word}\n" for word in found if word != "DESCRIPTOR"]
    return "".join(lines)


def outputs() -> dict[Path, str]:
    """Returns all generated files with their text."""
    with tempfile.TemporaryDirectory() as folder:
        made = {SOURCE / "_gen" / name: text for name, text in stubs(Path(folder)).items()}
    for path in sorted((SOURCE / "aio").glob("*.py")):
        made[SOURCE / "_sync" / path.name] = blocking(path.read_text(), path.name)
    return made


def present() -> set[Path]:
    """Returns the generated files that are there."""
    return {path for part in ("_gen", "_sync") for path in (SOURCE / part).rglob("*.py*") if path.suffix != ".pyc"}


def drift() -> list[str]:
    """Returns what differs between the files that are there and those that would be made."""
    made, there = outputs(), present()
    differs = [f"{path} differs" for path, text in made.items() if path in there and path.read_text() != text]
    missing = [f"{path} is missing" for path in made.keys() - there]
    return sorted(differs + missing + [f"{path} is not generated any more" for path in there - made.keys()])


def main() -> None:
    """Makes the files, or says what differs."""
    if "--check" in sys.argv[1:]:
        found = drift()
        sys.exit("\n".join([*found, "run clients/python/generate.py"]) if found else 0)
    made = outputs()
    for path in present() - made.keys():
        path.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{len(made)} files")


if __name__ == "__main__":
    main()
