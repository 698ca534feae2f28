"""Follows the steps of a Dockerfile on this machine, each in a root folder of its own. Knows no Docker.

The base image is played by this machine's `/usr`, `/etc` and Python, which no step can change: what one writes there
goes into the stage's own folder. Packages come from uv's cache as links, since copies would take minutes. Needs root
and Linux.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")
FAST = {"UV_LINK_MODE": "symlink", "UV_COMPILE_BYTECODE": "0"}
"""Instead of what a Dockerfile sets."""
NETWORK = re.compile(
    r"(PIP_CERT|PIP_INDEX_URL|PIP_EXTRA_INDEX_URL|UV_(?!CACHE_DIR).*|SSL_.*|REQUESTS_CA_BUNDLE|.*_proxy|.*_PROXY)$"
)
"""Variables that say how this machine reaches package indexes."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PLAIN = ("app", "dev", "home", "opt", "proc", "root", "run", "srv", "sys", "tmp", "var/lib", "var/tmp", "var/cache")
"""Folders that a stage starts with, empty."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile."""

    name: str
    """In capitals."""
    flags: tuple[str, ...]
    value: str


@dataclass
class Stage:
    """A stage that was built, which is an image if it is the last."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    folder: str = "/"
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()

    def start(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        read_only: bool = False,
        mounts: Mapping[str, Path] | None = None,
        stdout: int | None = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start a command in the stage; without one, its own.

        Args:
            command: program and arguments.
            env: variables beside the stage's.
            user: name or number; the stage's unless given.
            read_only: no file can be written but in volumes, in `mounts` and in `/tmp`.
            mounts: folders of this machine, by their path in the stage.
            stdout: as for `subprocess.Popen`; standard error goes there too.
        """
        user = user or self.user
        words = command or (*self.entrypoint, *self.command)
        lines = [*self._mount_lines(), *(self._bind(path, target) for target, path in (mounts or {}).items())]
        if read_only:
            for volume in map(self._at, self.volumes):
                lines.append(f"mount --bind {volume} {volume}; mount -o remount,bind,rw {volume}")
            lines += [f"mount -t tmpfs none {self._at('/tmp')}", f"mount --bind {self.root} {self.root}"]
            # A bind mount hides the mounts below it: they are made anew on top of the read-only one.
            lines = [*lines[-1:], f"mount -o remount,bind,ro {self.root}", *lines[:-1]]
            lines += [f"mount -o remount,ro {self._at(each)}" for each in ("/etc", "/usr/local")]
        who = user if ":" in user else f"{user}:{user}"
        inner = f"cd {self.folder} && exec {shlex.join(words)}"
        lines.append(f"exec chroot --userspec={who} {self.root} /bin/sh -c {shlex.quote(inner)}")
        script = "set -e\n" + "\n".join(lines)
        clean = {"HOME": self._home(user), "PATH": PATH}
        if self.volumes:  # since packages are not compiled, what they are compiled to is kept
            clean["PYTHONPYCACHEPREFIX"] = f"{self.volumes[0]}/.compiled"
        return subprocess.Popen(
            ["unshare", "--mount", "bash", "-c", script],
            env={**clean, **self.env, **(env or {})},
            stdout=stdout,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command in the stage to its end; takes what `start` does."""
        process = self.start(*command, **options)  # type: ignore[arg-type]
        output, _ = process.communicate(timeout=600)
        return subprocess.CompletedProcess(command, process.returncode, output)

    def path(self, path: str) -> Path:
        """Where a path of the stage is on this machine, if no step has replaced the base image's."""
        return self.root / path.removeprefix("/")

    def _at(self, path: str) -> str:
        return shlex.quote(str(self.path(path)))

    def _bind(self, source: Path, target: str) -> str:
        return f"mkdir -p {self._at(target)}; mount --bind {shlex.quote(str(source))} {self._at(target)}"

    def _home(self, user: str) -> str:
        folder = next((each for each in ("fashion", "bentoml") if (self.root / "home" / each).is_dir()), "")
        return "/root" if user == "root" else f"/home/{folder}"

    def _mount_lines(self) -> list[str]:
        upper = self.root.with_name(self.root.name + "-upper")
        python = Path(sys.base_prefix).resolve()
        lines = [f"mount --bind -o ro /usr {self._at('/usr')}; mount -o remount,bind,ro {self._at('/usr')}"]
        for target, lower in (("/etc", "/etc"), ("/usr/local", str(python))):
            name = target.strip("/").replace("/", "-")
            own, work = upper / name, upper / f"work-{name}"
            own.mkdir(parents=True, exist_ok=True)
            work.mkdir(parents=True, exist_ok=True)
            lines.append(f"mount -t overlay -o lowerdir={lower},upperdir={own},workdir={work} none {self._at(target)}")
        lines += [f"mount --rbind /dev {self._at('/dev')}", f"mount -t proc none {self._at('/proc')}"]
        # Python may look for its shared library where it was installed.
        for source, target in ((CACHE, "/root/.cache/uv"), (python / "lib", str(python / "lib"))):
            access = "rw" if self.user == "root" and source == CACHE else "ro"
            lines.append(f"{self._bind(source, target)}; mount -o remount,bind,{access} {self._at(target)}")
        return lines


def require_root() -> None:
    """Skip the test where a root folder cannot be made, which needs root and Linux; on Linux in CI it fails."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None:
        is_missed = sys.platform == "linux" and os.environ.get("CI")
        (pytest.fail if is_missed else pytest.skip)("the steps of a Dockerfile are followed as root, on Linux")
    if sys.base_prefix == "/usr":
        pytest.skip("Debian's Python cannot play a base image: it takes no packages from pip")


def parse(text: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile: continued lines joined, comments dropped."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(line.rstrip() for line in lines))
    found = []
    for line in joined.splitlines():
        name, _, rest = line.strip().partition(" ")
        words = rest.split()
        flags = [word for index, word in enumerate(words) if all(w.startswith("--") for w in words[: index + 1])]
        value = rest.strip()
        for flag in flags:
            value = value.removeprefix(flag).strip()
        found.append(Instruction(name.upper(), tuple(flags), value))
    return found


def build(dockerfile: str, context: Path, folder: Path, *, args: Mapping[str, str] | None = None) -> Stage:
    """Follow all steps, and return the last stage.

    Args:
        dockerfile: its text.
        context: the folder that COPY takes from.
        folder: where roots are made.
        args: of `--build-arg`.
    """
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for number, each in enumerate(parse(dockerfile)):
        words = _words(each.value, {**stage.args, **stage.env})
        match each.name:
            case "FROM":
                stage = _from(words, stages, folder / f"stage-{number}")
                if len(words) == 3:
                    stages[words[2]] = stage
            case "ARG":
                name, _, default = words[0].partition("=")
                stage.args[name] = (args or {}).get(name, default)
            case "ENV":
                stage.env |= dict(word.split("=", 1) for word in words)
            case "RUN":
                _run(stage, each)
            case "COPY":
                _copy(stage, each.flags, words, stages, context)
            case "WORKDIR":
                stage.folder = words[0]
                stage.path(words[0]).mkdir(parents=True, exist_ok=True)
            case "USER":
                stage.user = words[0]
            case "VOLUME":
                stage.volumes += tuple(words)
            case "CMD":
                stage.command = tuple(json.loads(each.value))
            case "ENTRYPOINT":
                stage.entrypoint = tuple(json.loads(each.value))
            case "EXPOSE" | "HEALTHCHECK" | "LABEL":
                pass
            case other:
                raise AssertionError(f"{other} is not known here")
    return stage


def _from(words: Sequence[str], stages: Mapping[str, Stage], root: Path) -> Stage:
    if words[0] in stages:
        parent = stages[words[0]]
        for suffix in ("", "-upper"):
            source = parent.root.with_name(parent.root.name + suffix)
            if source.exists():
                subprocess.run(["cp", "-a", str(source), str(root.with_name(root.name + suffix))], check=True)
        return Stage(root, dict(parent.env), {}, parent.user, parent.folder)
    for name in ("usr", "etc", *PLAIN):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "tmp").chmod(0o1777)
    pip = root.with_name(f"{root.name}-upper") / "usr-local" / "bin" / "pip"  # this machine's names another interpreter
    pip.parent.mkdir(parents=True)
    pip.write_text('#!/bin/sh\nexec /usr/local/bin/python -m pip "$@"\n')
    pip.chmod(0o755)
    return Stage(root)


def _run(stage: Stage, instruction: Instruction) -> None:
    reachable = {name: value for name, value in os.environ.items() if NETWORK.match(name)}
    environment = {**reachable, **stage.args, **stage.env, **FAST}
    done = stage.run("/bin/sh", "-c", instruction.value, env=environment)
    assert done.returncode == 0, f"{instruction.value}\n{done.stdout[-3000:]}"


def _copy(stage: Stage, flags: Sequence[str], words: Sequence[str], stages: Mapping[str, Stage], context: Path) -> None:
    chosen = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    source = stages[chosen["from"]].root if "from" in chosen else context
    target = words[-1] if words[-1].startswith("/") else f"{stage.folder}/{words[-1]}"
    into = stage.path(target)
    as_folder = target.endswith("/") or len(words) > 2
    for word in words[:-1]:
        path = source / word.removeprefix("/")
        assert path.exists(), f"COPY {word}: it is not in the build context"
        destination = into / path.name if as_folder and path.is_file() else into
        destination.parent.mkdir(parents=True, exist_ok=True)
        what = f"{path}/." if path.is_dir() else str(path)
        if path.is_dir():
            destination.mkdir(parents=True, exist_ok=True)
        # Stages never change what they share: files of another stage are linked, not copied.
        options = ["-al"] if "from" in chosen else ["-a", "--no-preserve=ownership"]
        subprocess.run(["cp", *options, what, str(destination)], check=True)
        if owner := chosen.get("chown"):
            done = stage.run("chown", "-R", owner, target, user="root")
            assert done.returncode == 0, done.stdout


def _words(value: str, variables: Mapping[str, str]) -> list[str]:
    try:
        return [_expand(word, variables) for word in shlex.split(value)]
    except ValueError:  # a RUN may hold anything
        return []


def _expand(word: str, variables: Mapping[str, str]) -> str:
    known = {"PATH": PATH, **variables}
    return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), word)
