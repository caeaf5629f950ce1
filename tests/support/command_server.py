"""Python commands in forks of one process that has already imported what they need.

`started` gives the folder of two programs, `fluidwait` and `python`, that act as the real
ones do, with their own arguments, folder, environment and streams, but without the two seconds that
each spends on imports. The documentation has more than a hundred of them.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

CLIENT = Path(__file__).with_name("command_client.py")
PROGRAMS = (("fluidwait", "-m fluidwait"), ("python", ""))
LIBRARIES = ("cvxpy", "matplotlib.pyplot", "scipy.optimize", "scipy.stats")


@contextmanager
def started(folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A server, and the folder with the programs that ask it."""
    address, programs = folder / "commands", folder / "bin"
    programs.mkdir()
    for name, arguments in PROGRAMS:
        script = programs / name
        client = f'"{sys.executable}" -I -S "{CLIENT}" "{address}"'
        script.write_text(f'#!/bin/sh\nexec {client} {arguments} "$@"\n')
        script.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen(16)
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            env=environment,
        )
    try:
        yield programs
    finally:
        server.terminate()
        server.wait()


def serve(listening: socket.socket) -> None:
    """Run every command that comes, at once and for ever."""
    for name in LIBRARIES:
        importlib.import_module(name)
    commands = importlib.import_module("fluidwait.commands")
    for one in pkgutil.iter_modules(commands.__path__, "fluidwait.commands."):
        importlib.import_module(one.name)
    gc.freeze()
    while True:
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _answer(client)
        client.close()
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(client: socket.socket) -> None:
    """Run one command in a process of its own, and tell its exit code."""
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile() as told:
        asked = json.loads(told.readline())
    process = os.fork()
    if process == 0:
        client.close()
        os._exit(_run(streams, **asked))
    _, status = os.waitpid(process, 0)
    client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _run(streams: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        _execute(arguments)
        code: Any = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


def _execute(arguments: list[str]) -> None:
    """As ``python ARGUMENTS``."""
    first, *rest = arguments
    sys.path[0] = ""
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
