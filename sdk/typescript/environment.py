#!/usr/bin/env python3
"""Makes a folder in which the TypeScript SDK is built and its tests can run, and prints its path.

    python3 sdk/typescript/environment.py DIRECTORY [--browser]

What the SDK is built from is copied there, its packages are installed as `package-lock.json` names them, and it is compiled;
what has not changed is not done again. With --browser, Chromium is needed too. Node 20, npm and Chromium are taken from Debian's
packages when they are missing and this runs as root; otherwise it says what to install and ends with 77. Several processes may run it at once.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NODE_LEAST = 20
#: The exit code for what only the user can see to.
MISSING = 77
COPIED = ["package.json", "package-lock.json", ".npmrc", "tsconfig.json", "README.md", "src", "tests"]


class Missing(Exception):
    """Something that only the user can see to."""


class Failed(Exception):
    """Something that should have worked."""


def run(*command: str, cwd: "Path | None" = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def installed(*packages: str) -> bool:
    """Tries to install Debian's packages."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    install = ("apt-get", "install", "--yes", "--no-install-recommends", *packages)
    if run(*install).returncode == 0:
        return True
    run("apt-get", "update")
    return run(*install).returncode == 0


def node_version() -> int:
    if not shutil.which("node") or not shutil.which("npm"):
        return 0
    found = re.match(r"v(\d+)\.", run("node", "--version").stdout)
    return int(found[1]) if found else 0


def need_node() -> None:
    if node_version() >= NODE_LEAST:
        return
    installed("nodejs", "npm")
    if node_version() < NODE_LEAST:
        raise Missing(f"Node {NODE_LEAST} or later is needed, with npm: install the packages nodejs and npm")


def need_browser() -> None:
    if not shutil.which("chromium") and not (installed("chromium") and shutil.which("chromium")):
        raise Missing("Chromium is needed: install the package chromium")


def files(directory: Path) -> "dict[str, bytes]":
    found = {}
    for name in COPIED:
        path = directory / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                found[str(file.relative_to(directory))] = file.read_bytes()
    return found


def mark(found: "dict[str, bytes]", *prefixes: str) -> str:
    chosen = {name: content for name, content in found.items() if name.startswith(prefixes)}
    return hashlib.sha256(repr((sorted(chosen.items()), node_version())).encode()).hexdigest()


def done_once(stamp: Path, wanted: str) -> bool:
    return stamp.exists() and stamp.read_text(encoding="utf-8") == wanted


def step(directory: Path, name: str, wanted: str, *command: str) -> None:
    """Runs a command unless it has done its work already."""
    stamp = directory / f".{name}-stamp"
    if done_once(stamp, wanted):
        return
    done = run(*command, cwd=directory)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(command)}` failed:\n{done.stdout.strip()}")
    stamp.write_text(wanted, encoding="utf-8")


def copy(directory: Path, found: "dict[str, bytes]") -> None:
    for name in ["src", "tests"]:
        shutil.rmtree(directory / name, ignore_errors=True)
    for name, content in found.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def environment(directory: Path) -> None:
    need_node()
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory.parent / (directory.name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = files(HERE)
        if files(directory) != found:
            copy(directory, found)
        step(directory, "packages", mark(found, "package", ".npmrc"), "npm", "ci", "--no-progress")
        step(directory, "built", mark(found, "package", "src", "tsconfig"), "npm", "run", "build")


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--browser"]
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    directory = Path(arguments[0]).absolute()
    try:
        if "--browser" in sys.argv:
            need_browser()
        environment(directory)
    except Missing as missing:
        print(missing, file=sys.stderr)
        return MISSING
    except (Failed, OSError) as error:
        print(f"no TypeScript environment in {directory}: {error}", file=sys.stderr)
        return 1
    print(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
