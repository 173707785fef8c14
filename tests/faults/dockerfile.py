"""Runs the lines of a Dockerfile in a folder, for machines that cannot build images.

The folder is the root of the image: absolute paths of the file become paths below it. The base image is a fresh virtual
environment with pip, as `python:3.11-slim` has it. Files of other images are not there.
"""

import os
import shlex
import shutil
import string
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "pipelines" / "deploy"
KEEPS_NO_DOWNLOADS = {"PIP_NO_CACHE_DIR", "UV_NO_CACHE"}
"""What keeps an image small; here the packages that `make setup` brought are linked from their cache."""
OUTSIDE = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME", "RESERVOIR_EXTRAS", "UV_PROJECT_ENVIRONMENT"}
"""Variables of this process that an image does not see; those that say where packages come from it does."""


def instructions(name):
    """The instructions of a Dockerfile: (keyword, the rest of the line)."""
    lines = (line for line in (DEPLOY / name).read_text().splitlines() if not line.lstrip().startswith("#"))
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in whole if line.strip()]


class Image:
    """What the lines of a Dockerfile make below `folder`; `arguments` are those of `--build-arg`."""

    def __init__(self, folder, name, **arguments):
        self.folder, self.place, self.variables, self.arguments = folder, folder, {}, {}
        subprocess.run([sys.executable, "-m", "venv", folder / "usr"], check=True, timeout=60)
        self.variables["PATH"] = f"{folder / 'usr' / 'bin'}:/usr/bin:/bin"
        for keyword, rest in instructions(name):
            getattr(self, f"_{keyword.lower()}")(rest, arguments)

    def _from(self, rest, arguments):
        assert rest.startswith("python:3.11."), rest

    def _arg(self, rest, arguments):
        name, _, default = rest.partition("=")
        self.arguments[name] = arguments.get(name, default.strip('"'))

    def _env(self, rest, arguments):
        known = self.arguments | self.variables
        for word in shlex.split(string.Template(rest).substitute(known)):
            name, _, value = word.partition("=")
            self.variables[name] = self._below(value)

    def _workdir(self, rest, arguments):
        self.place = Path(self._below(rest))
        self.place.mkdir(parents=True)

    def _copy(self, rest, arguments):
        *sources, target = rest.split()
        if sources[0].startswith("--from="):
            return
        for source in map(ROOT.joinpath, sources):
            if source.is_dir():
                shutil.copytree(source, self.place / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.place / target)

    def _run(self, rest, arguments):
        done = self._started(["/bin/sh", "-ec", rest], self.place, self.arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def _entrypoint(self, rest, arguments):
        self.entrypoint = rest

    def _below(self, value):
        """A value whose absolute paths are those of the image: folders of its own that the lines made."""
        made = f"/{self.place.relative_to(self.folder)}" if self.place != self.folder else None
        if value.startswith("/") and ":" not in value and (made is None or not value.startswith(made)):
            return f"{self.folder}{value}"
        return value.replace(made, str(self.place)) if made else value

    def __call__(self, *command, folder="/", **variables):
        """A command in a container of this image: its exit status, output and errors."""
        return self._started([str(word) for word in command], folder, variables)

    def _started(self, command, folder, more):
        outside = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
        inside = {name: value for name, value in self.variables.items() if name not in KEEPS_NO_DOWNLOADS}
        environment = outside | inside | {name: str(value) for name, value in more.items()}
        program = shutil.which(command[0], path=environment["PATH"])
        return subprocess.run(
            [program, *command[1:]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def size(self):
        """Bytes of all files that the lines made, but for the base image's, each file counted once."""
        paths = (path for path in self.place.rglob("*") if path.is_file() and not path.is_symlink())
        return sum({(found := path.stat()).st_ino: found.st_size for path in paths}.values())
