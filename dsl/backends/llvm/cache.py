"""Object code kept on disk.

In: a text that decides the code (the program's listing) and how to make the module from it.  Out: object code, made anew or
read from the user's cache directory.

    file  ::=  magic, SHA-256 of what follows, object code           named by the SHA-256 of all that decides the code

A file that is damaged is made anew and never run; a directory that cannot be used, or that somebody else may write, is done
without.  Writing is by a rename, so that another process sees a whole file or none.  When there are too many files or bytes,
those used longest ago go.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from hashlib import sha256

from dsl.backends.llvm.engine import llvm_version, object_code, processor
from dsl.syntax.table import cache_directory

MAGIC = b"lr object 1\n"
MOST_FILES = 1_000
MOST_BYTES = 64 << 20


def compiled(decisive: str, module: Callable[[], str], keep: bool = True) -> tuple[bytes, bool]:
    """The object code of a module, from the cache where it is there; and whether it was made anew."""
    path = os.path.join(directory(), _name(decisive)) if keep else ""
    keep = keep and private(os.path.dirname(path))
    if keep and (found := read(path)) is not None:
        return found, False
    code = object_code(module())
    if keep:
        write(path, code)
    return code, True


def directory() -> str:
    return os.path.join(cache_directory(), "objects")


def private(folder: str) -> bool:
    """Whether the folder is there, made if need be, and nobody else may write it: what is in it will be run."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.stat(folder)
    except OSError:
        return False
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


def _name(decisive: str) -> str:
    parts = (decisive, llvm_version(), *processor(), own_sources())
    return sha256("\0".join(parts).encode()).hexdigest()


@cache
def own_sources() -> str:
    """A hash of what turns programs into code: the files here, and the table of instructions."""
    from dsl.machine import instructions
    here = os.path.dirname(os.path.abspath(__file__))
    files = sorted(os.path.join(here, name) for name in os.listdir(here) if name.endswith(".py"))
    digest = sha256()
    for path in [*files, os.path.abspath(instructions.__file__)]:
        with open(path, "rb") as file:
            digest.update(sha256(file.read()).digest())
    return digest.hexdigest()


def read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            data = file.read()
        start = len(MAGIC) + 32
        if not data.startswith(MAGIC) or sha256(data[start:]).digest() != data[len(MAGIC):start]:
            return None
        os.utime(path)                                          # it was used now
        return data[start:]
    except OSError:
        return None


def write(path: str, code: bytes) -> None:
    folder = os.path.dirname(path)
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(MAGIC + sha256(code).digest() + code)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        prune(folder)
    except OSError:
        return


def prune(folder: str) -> None:
    """Leaves the files that were used last."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:                           # another process was quicker
                continue
            found.append((status.st_mtime, status.st_size, entry.path))
    found.sort(reverse=True)
    total = 0
    for position, (_, size, path) in enumerate(found):
        total += size
        if position >= MOST_FILES or total > MOST_BYTES:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
