"""Files and run folders on an object store (``s3://bucket/folder``), through the file systems of pyarrow.

A run there is worked on in a copy on this machine, which knows where it belongs (``HOME``). What a run must not lose is
put into the store as soon as it is written (``put``), the rest when the work ends (``working_copy``). An object appears
in the store whole or not at all, as a file does here by an atomic write.
"""

from __future__ import annotations

import re
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from glob import glob
from pathlib import Path
from types import FrameType
from typing import Any

from judge.errors import CALLED, EngineError, InputError, one_line

ADDRESS = re.compile(r"(s3|gs|gcs|abfs|abfss|hdfs):/+([^/]+)(/.*)?", re.IGNORECASE | re.DOTALL)
"""An address in a store: its kind, the bucket, the place in it. One that became a ``Path`` has lost a slash."""


OPTIONS, PASSWORD = re.compile(r"[?&][A-Za-z_-]+="), re.compile(r":.*@")
"""What an address must not hold: options behind its place, a password before its bucket."""


HOME = ".home"
"""The file of a working copy with the address that it is a copy of."""


WILD = re.compile(r"[*?\[]")
"""What makes a path a pattern."""


State = tuple[int, int]
"""Size and time of change of a file."""


_STORED: dict[Path, State] = {}
"""Files of working copies as they are in the store."""


def address_of(path: Path | str) -> str | None:
    """The address that a path stands for; None for a path of this machine. InputError where it has options or a key."""
    found = ADDRESS.fullmatch(str(path))
    if not found:
        return None
    kind, bucket, place = found[1].lower(), found[2], found[3] or ""
    if OPTIONS.search(f"{bucket}{place}") or PASSWORD.search(bucket):
        raise InputError(
            f"{kind}://…: an address is written down, so it must hold no key and no options; give them by the "
            "environment (of S3 AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL)"
        )
    return f"{kind}://{bucket}{place}"


def refuse_address(path: Path) -> None:
    """InputError where a path is an address, for what works on a folder of this machine only."""
    if address := address_of(path):
        raise InputError(f"{address}: is in a store; copy it here, and name the copy")


@contextmanager
def working_copy(run: Path) -> Iterator[Path]:
    """A run's folder to work in: the folder itself, or a copy of one in a store.

    What was written into the copy is in the store when the block ends, also by an error or a termination signal.

    Args:
        run: a folder, or the address of one; it need not exist yet.

    Raises:
        InputError: the store cannot be reached.
        EngineError: what was written cannot be put there.
    """
    address = address_of(run)
    if not address:
        yield run
        return
    with _terminable(), tempfile.TemporaryDirectory(prefix="esrp-judge-") as folder:
        copy = Path(folder) / Path(address).name
        copy.mkdir()
        CALLED[str(copy)] = address
        (copy / HOME).write_text(address, encoding="utf-8")
        refresh(copy)
        try:
            yield copy
        finally:
            for file in _files(copy):
                put(copy, file)


@contextmanager
def _terminable() -> Iterator[None]:
    """Has a termination signal end the block as Ctrl-C does, so that no copy of a run is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def home_of(folder: Path) -> str | None:
    """The address that a folder is a working copy of; None where it is none."""
    home = folder / HOME
    return home.read_text(encoding="utf-8") if home.is_file() else None


def shown(folder: Path) -> str:
    """What a run's folder is called for a user: of a working copy, the address."""
    return home_of(folder) or str(folder)


def refresh(copy: Path) -> None:
    """Bring what the store holds into a working copy; InputError where the store cannot be reached."""
    address = str(home_of(copy))
    from pyarrow import fs

    with _reading(address):
        store, base = _opened(address)
        there = store.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        if there:
            _copy(store, base, copy)
    for one in there:
        if one.type == fs.FileType.File:
            file = copy / one.path.removeprefix(f"{base}/")
            _STORED[file] = _state(file)


def put(folder: Path, file: Path) -> None:
    """Put a file of a folder into the store, where the folder is a working copy and the store has it otherwise.

    EngineError where it cannot be put there.
    """
    address = home_of(folder)
    if not address or _STORED.get(file) == (state := _state(file)):
        return
    from pyarrow import fs

    with _writing(address):
        store, base = _opened(address)
        place = f"{base}/{file.relative_to(folder).as_posix()}"
        fs.copy_files(str(file), place, source_filesystem=fs.LocalFileSystem(), destination_filesystem=store)
    _STORED[file] = state


def take_back(folder: Path, file: Path) -> None:
    """Remove a file of a folder, also from the store where the folder is a working copy."""
    file.unlink(missing_ok=True)
    if _STORED.pop(file, None):
        remove(f"{home_of(folder)}/{file.relative_to(folder).as_posix()}")


def write(address: str, content: bytes) -> None:
    """Put an object into a store; EngineError where it cannot be."""
    with _writing(address):
        store, path = _opened(address)
        with store.open_output_stream(path) as out:
            out.write(content)


def remove(address: str) -> None:
    """Take an object out of a store, where it is there."""
    with suppress(OSError):
        store, path = _opened(address)
        store.delete_file(path)


def opened(path: Path | str) -> Any:
    """A file to read, here or in a store, as pyarrow takes one; InputError where the store cannot be reached."""
    address = address_of(path)
    if not address:
        return path
    with _reading(address):
        store, inside = _opened(address)
        return store.open_input_file(inside)


def is_there(path: Path | str) -> bool:
    """Whether there is a file, here or in a store; False too where the store cannot be reached."""
    address = address_of(path)
    if not address:
        return Path(path).is_file()
    try:
        return _kind(*_opened(address)) == "File"
    except OSError:
        return False


@contextmanager
def fetched(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Paths of this machine for files and folders of data: patterns filled in, and copies of what is in a store.

    Raises:
        InputError: a pattern fits nothing, or the store cannot be reached.
    """
    with ExitStack() as stack:
        found = []
        for path in paths:
            address = address_of(path)
            if address:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="esrp-judge-"))
                found += _copies(address, Path(folder))
            elif WILD.search(str(path)) and not path.exists():
                fitting = sorted(map(Path, glob(str(path))))
                if not fitting:
                    raise InputError(f"{path}: no file or folder fits this pattern; check the path")
                found += fitting
            else:
                found.append(path)
        yield found


def _copies(address: str, folder: Path) -> list[Path]:
    """Copies, in a folder, of what an address means: a file, the files of a folder, or all that fit a pattern."""
    from pyarrow import fs

    with _reading(address):
        store, base = _opened(address)
        if wild := WILD.search(base):
            fixed = base[: wild.start()].rpartition("/")[0]
            inside = store.get_file_info(fs.FileSelector(fixed, recursive=True, allow_not_found=True))
            names = [one.path for one in inside if one.type == fs.FileType.File and _fits(one.path, base)]
        elif _kind(store, base) == "Directory":
            inside = store.get_file_info(fs.FileSelector(base))
            names = [one.path for one in inside if one.type == fs.FileType.File]
        else:
            names = [base] if _kind(store, base) == "File" else []
    if not names:
        raise InputError(f"{address}: no file is there; check the address")
    copies = []
    for number, name in enumerate(sorted(names)):
        copy = folder / str(number) / Path(name).name  # of its own, as names may stand twice below a pattern
        copy.parent.mkdir()
        with _reading(address):
            _copy(store, name, copy)
        CALLED[str(copy.parent)] = f"{address.partition(':')[0]}://{name.lstrip('/').rpartition('/')[0]}"
        copies.append(copy)
    return copies


def _fits(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern, folder by folder."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(fnmatch(part, one) for part, one in zip(parts, wanted, strict=True))


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    from pyarrow import fs

    kind, bucket, place = ADDRESS.fullmatch(address).groups(default="")  # type: ignore[union-attr]
    # Only the bucket goes through the reading of an address: names of files are any text, and none of it is an option.
    store, base = fs.FileSystem.from_uri(f"{kind}://{bucket}")
    return store, f"{base.rstrip('/')}{place.rstrip('/')}"


def _kind(store: Any, path: str) -> str:
    """What is at a path: File, Directory or NotFound."""
    return str(store.get_file_info(path).type.name)


def _copy(store: Any, path: str, place: Path) -> None:
    """Copy a file, or a folder with all that is in it, to this machine."""
    from pyarrow import fs

    fs.copy_files(path, str(place), source_filesystem=store, destination_filesystem=fs.LocalFileSystem())


@contextmanager
def _reading(address: str) -> Iterator[None]:
    """Turns what goes wrong with a store into an InputError."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{address}: cannot be read ({one_line(error)}); check address and keys") from error


@contextmanager
def _writing(address: str) -> Iterator[None]:
    """Turns what goes wrong with a store into an EngineError."""
    try:
        yield
    except OSError as error:
        raise EngineError(f"{address}: cannot be written ({one_line(error)})") from error


def _files(folder: Path) -> list[Path]:
    """Every file in a folder but those that begin with a dot."""
    return [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]


def _state(file: Path) -> State:
    return file.stat().st_size, file.stat().st_mtime_ns
