#!/usr/bin/env python3
"""Makes a virtual environment in which `edri_sdk` can be imported, and prints the path of its interpreter.

    python3 sdk/python/environment.py DIRECTORY [EXTRA ...]

The environment is made once and brought up to date when `pyproject.toml` has changed; EXTRA are its optional
dependencies, as `test`. The SDK itself is not copied: what is imported is `sdk/python/src`. Runs with any Python from
3.9 on, needs nothing but its standard library, and may be run by several processes at once.
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
PYTHON_LEAST = (3, 9)


class Missing(Exception):
    """Something that only the user can see to."""


def requirements(text: str, extras: "list[str]") -> "list[str]":
    """The dependencies that `pyproject.toml` names; Python 3.9 cannot read TOML by itself, so the lists are plain."""

    def strings(name: str) -> "list[str]":
        found = re.search(rf"^{name} = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
        if found is None:
            raise Missing(f"pyproject.toml has no list `{name}`")
        return re.findall(r'"([^"]+)"', found.group(1))

    return [requirement for name in ["dependencies", *extras] for requirement in strings(name)]


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def why(text: str) -> str:
    """Why pip failed: its last line, unless that only follows from what it said before."""
    return "the package index cannot be reached" if "connection broken" in text else last_line(text)


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def make(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    made = run(sys.executable, "-m", "venv", str(directory))
    if made.returncode != 0 and "ensurepip" in made.stdout and os.geteuid() == 0 and shutil.which("apt-get"):
        # Debian keeps what `venv` needs in a package of its own.
        run("apt-get", "install", "--yes", "python3-venv")
        made = run(sys.executable, "-m", "venv", str(directory))
    if made.returncode != 0:
        advice = "install it: `apt install python3-venv`" if "ensurepip" in made.stdout else last_line(made.stdout)
        raise Missing(f"`python3 -m venv` does not work: {advice}")


def environment(directory: Path, extras: "list[str]") -> Path:
    """The interpreter of an environment that has what is needed."""
    if sys.version_info < PYTHON_LEAST:
        raise Missing(f"Python {sys.version.split()[0]} is too old: 3.9 or later is needed")
    text = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    wanted = requirements(text, extras)
    mark = hashlib.sha256(repr((wanted, sys.executable, sys.version, str(HERE))).encode()).hexdigest()
    python, stamp = directory / "bin" / "python", directory / "edri-stamp"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.parent / (directory.name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == mark:
            return python
        make(directory)
        installed = run(str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *wanted)
        if installed.returncode != 0:
            raise Missing(f"`pip install {' '.join(wanted)}` failed: {why(installed.stdout)}")
        (packages,) = directory.glob("lib/python3*/site-packages")
        (packages / "edri_sdk.pth").write_text(f"{HERE / 'src'}\n", encoding="utf-8")
        stamp.write_text(mark, encoding="utf-8")
    return python


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(environment(Path(sys.argv[1]).absolute(), sys.argv[2:]))
    except (Missing, OSError) as error:
        print(f"no Python environment in {sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
