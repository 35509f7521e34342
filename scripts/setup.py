#!/usr/bin/env python3
"""Provides libtorch 2.11.0 (CPU) and writes cargo's configuration; does nothing when both are there.

usage: setup.py [--cuda] [--redis]
  --cuda   provides libtorch with CUDA as well, and .cargo/cuda.toml, which `make build-cuda` hands to cargo
  --redis  installs redis-server for tests, through apt-get, where this is root

The files come from the PyPI wheels in requirements-libtorch.txt (versions and hashes pinned) through pip. They are kept in
$JOUST_CACHE (default ~/.cache/joust), outside the clone; the clone gets a link, `.libtorch`. A LIBTORCH that is set in the
environment wins: then nothing is downloaded and cargo is pointed at it.
"""
import glob
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VERSION = "2.11.0"
CACHE = os.environ.get("JOUST_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "joust")
TORCH_LIBS = ("libtorch_cpu.so", "libc10.so", "libgomp.so.1")
TOOLS = {  # program: the Debian package that brings it
    "cargo": "Rust 1.95 or newer through rustup (Debian's cargo is older)",
    "g++": "apt-get install g++",
    "make": "apt-get install make",
}


def fail(message):
    sys.exit(f"setup: {message}")


def check_tools():
    missing = [f"{tool} (install: {how})" for tool, how in TOOLS.items() if not shutil.which(tool)]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        missing.append("pip for python3 (install: apt-get install python3-pip)")
    if missing:
        fail("missing: " + "; ".join(missing))
    if platform.machine() != "x86_64":
        fail(f"no libtorch wheel is pinned for {platform.machine()}; set LIBTORCH to a libtorch {VERSION} folder")


def provide_redis():
    """Installs Debian's redis-server where that takes no more than apt; without it the tests over a Redis are skipped."""
    if shutil.which("redis-server"):
        return
    how = "redis-server is not installed, tests over a Redis are skipped (install: apt-get install redis-server)"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"setup: {how}")
        return
    # Only the program: no service is to start with it.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1", "SYSTEMD_OFFLINE": "1"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "redis-server"]
    for command in (install, ["apt-get", "update"], install):
        if subprocess.run(command, env=environment, **quiet).returncode == 0 and shutil.which("redis-server"):
            return
    print(f"setup: {how}")


def pip(action, requirements):
    platforms = [f"--platform=manylinux{of}_x86_64" for of in ("_2_28", "_2_27", "_2_25", "_2_18", "2014")]
    subprocess.run(
        [sys.executable, "-m", "pip", *action, "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:",
         "--implementation", "cp", "--python-version", "3.11", *platforms,
         "-r", os.path.join(ROOT, "scripts", requirements)], check=True)


def extract(wheel, wanted, out):
    """Copies the wheel's members that `wanted` maps to a path below `out`."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            target = None if info.is_dir() else wanted(info.filename)
            if target:
                path = os.path.join(out, target)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with archive.open(info) as source, open(path, "wb") as sink:
                    shutil.copyfileobj(source, sink)


def torch_member(name):
    if name.startswith("torch/include/"):
        return name[len("torch/"):]
    base = os.path.basename(name)
    return f"lib/{base}" if name.startswith("torch/lib/") and base in TORCH_LIBS else None


def cuda_member(name):
    base = os.path.basename(name)
    return f"lib/{base}" if base in ("libcudart.so.13", "libcupti.so.13") else None


def build_libtorch(final):
    os.makedirs(CACHE, exist_ok=True)
    print(f"setup: fetching libtorch {VERSION} into {final} (530 MB once)", flush=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        wheels, out = os.path.join(work, "wheels"), os.path.join(work, "libtorch")
        pip(["download", "--dest", wheels], "requirements-libtorch.txt")
        extract(glob.glob(f"{wheels}/torch-*.whl")[0], torch_member, out)
        for wheel in glob.glob(f"{wheels}/nvidia_*.whl"):
            extract(wheel, cuda_member, out)
        os.symlink("libtorch_cpu.so", os.path.join(out, "lib", "libtorch.so"))
        finish(out, final, f"{VERSION}+cpu")


def finish(out, final, version):
    """Renames a folder into place: a cut download never looks finished."""
    with open(os.path.join(out, "build-version"), "w") as file:
        file.write(f"{version}\n")
    try:
        os.rename(out, final)
    except OSError:
        if not os.path.exists(os.path.join(final, "build-version")):
            raise


def build_cuda(final):
    """Unpacks the wheels beside each other, since torch's libraries find NVIDIA's at ../../nvidia."""
    check_tools()
    os.makedirs(CACHE, exist_ok=True)
    print(f"setup: fetching libtorch {VERSION} with CUDA into {final} (2 GB to fetch, 4 GB unpacked, once)", flush=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        out = os.path.join(work, "libtorch")
        # Bytecode of torch's Python is of no use here.
        pip(["install", "--no-compile", "--root-user-action=ignore", "--target", out], "requirements-libtorch-cuda.txt")
        with open(os.path.join(out, "torch", "build-version"), "w") as file:
            file.write(f"{VERSION}+cu130\n")  # where tch looks for it
        finish(out, final, f"{VERSION}+cu130")


def cuda_config(libtorch):
    """Returns cargo's configuration of the CUDA build: a target of its own keeps these flags from build scripts."""
    return f"""# Written by scripts/setup.py --cuda; not tracked.
[env]
LIBTORCH = {{ value = "{libtorch}", force = true }}

[build]
target = "x86_64-unknown-linux-gnu"

[target.x86_64-unknown-linux-gnu]
rustflags = [
    "-L", "native={libtorch}/lib",
    "-C", "link-arg=-Wl,-rpath,{libtorch}/lib,--allow-shlib-undefined",
    "-C", "link-arg=-Wl,--push-state,--no-as-needed,-ltorch_cuda,-lc10_cuda,--pop-state",
]
"""


def provide_cuda():
    folder = os.path.join(CACHE, f"libtorch-{VERSION}-cuda")
    if not os.path.exists(os.path.join(folder, "build-version")):
        build_cuda(folder)
    write_if_changed(os.path.join(ROOT, ".cargo", "cuda.toml"), cuda_config(os.path.join(folder, "torch")))


def write_if_changed(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.exists(path) or open(path).read() != text:
        with open(path, "w") as file:
            file.write(text)


def main():
    given = os.environ.get("LIBTORCH")
    link = os.path.join(ROOT, ".libtorch")
    if given and os.path.realpath(given) != os.path.realpath(link):
        libtorch = os.path.abspath(given)
        if not os.path.isdir(os.path.join(libtorch, "lib")):
            fail(f"LIBTORCH={given} has no lib folder; unset it or point it at libtorch {VERSION}")
    else:
        libtorch = os.path.join(CACHE, f"libtorch-{VERSION}-cpu")
        if not os.path.exists(os.path.join(libtorch, "build-version")):
            check_tools()
            build_libtorch(libtorch)
    if not os.path.islink(link) or os.readlink(link) != libtorch:
        if os.path.lexists(link):
            os.remove(link)
        os.symlink(libtorch, link)
    write_if_changed(os.path.join(ROOT, ".cargo", "config.toml"), f"""# Written by scripts/setup.py; not tracked.
[env]
LIBTORCH = {{ value = "{libtorch}" }}

[build]
rustflags = ["-C", "link-arg=-Wl,-rpath,{libtorch}/lib"]
""")
    if "--cuda" in sys.argv[1:]:
        provide_cuda()
    if "--redis" in sys.argv[1:]:
        provide_redis()


if __name__ == "__main__":
    main()
