"""The ChatAnime data set (Apache-2.0) at one commit: fetching its eleven files, and checking them.

A file is received into ``.NAME.part`` beside its place, checked, synced and renamed. So a file that is in its place is
complete and has the right sha256. What a broken connection left in ``.NAME.part`` is resumed. This module does not read
the dialogues.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import httpx

from judge.errors import EngineError, InputError, first_line, listed
from judge.files import cache_folder, sha256, sync

REPOSITORY = "LanlanQiu/ChatAnime"
COMMIT = "39eca38dfcf455d5d8953a9311a5be6ea166a6fe"


BASE = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/data/"
"""The address of the folder with the files; a file's name is appended."""


PAGE = f"https://github.com/{REPOSITORY}/tree/{COMMIT}/data"
"""The page on which the same files can be downloaded by hand."""


FILES: dict[str, tuple[int, str]] = {
    "claude-sonnet-4.json": (1_650_779, "71de7e1fa17440d086ed4e74adaabdc47cf97a45c1deb37b3b6dc0822a984c48"),
    "deepseek-v3.json": (1_598_002, "48748def1ea8695c4bc5a71e8d54169f601daf3705e21e90a04a93fb2948861d"),
    "doubao-1.5-pro.json": (1_475_883, "fe99a1a0843258d9084156448f65c56bd94aeb3d5ca6d1693b8ca8bc00107565"),
    "doubao-rp.json": (1_344_591, "bb3feb3264be65381d9172ed30972826b27cc5e23efcf98e80c66085f786ba17"),
    "gemini-2.5-flash-preview.json": (1_562_734, "3ebad2020babba7010d6d2f48d938effff88ef46df79680419944cb17d8c72ca"),
    "glm-4-plus.json": (1_659_373, "0cc2a13119d5eb5571112182f736aa87704ff3bee9454080d60d761a2f3ea31d"),
    "gpt-4.1.json": (1_640_455, "95b43e8556876aebcd9d5c3a0288f10f8f70e5950d9f0b6aea0cdcded3f1c44c"),
    "human.json": (1_372_505, "ced8058c3ba2934df7dfdf520e82747be87c4d0eefa7a910af28681d09ccf7c9"),
    "minimax-abab6.5s.json": (1_629_874, "ef174833970b469670537f3005545f623ad6e1cae43f23abc745f16a0cffa727"),
    "qwen-max.json": (1_643_353, "d3af8ad44fd9010067d62392db587067ce18873722a723a8304291c25dd535ab"),
    "xingchen-plus-v2.json": (1_408_085, "34d0df67e35ee7e83da455694bca17694cbd98a901aa894919648a4cb5996a68"),
}
"""Each file's size in bytes and its sha256."""


BACKOFF_S = (0.5, 2.0, 4.0)
"""Seconds to wait before each further try, after a broken connection or a server's failure."""


TIMEOUT_S = 30.0
"""Seconds without a byte after which a connection counts as broken."""


_BY_HAND = f"put the files of {PAGE} in a folder DIR and run `esrp-judge data fetch --from DIR`"


Progress = Callable[[str, int, int], None]
"""Called with the name of a file, how many bytes of it are here, and its size in bytes."""


def chatanime_folder() -> Path:
    """Where the data set is kept: ``chatanime`` in the cache folder; it need not exist yet."""
    return cache_folder() / "chatanime"


def fetch(
    folder: Path, origin: Path | None = None, base: str = BASE, on_progress: Progress = lambda name, have, size: None
) -> None:
    """Put the data set's files into ``folder``: from the network, or copied from the folder ``origin``.

    Files that are there and right are left alone. InputError: a checksum is wrong, ``origin`` lacks a file,
    ``base`` is not https (http is for 127.0.0.1 and localhost), or ``folder`` cannot be written. EngineError: the
    network or the server failed, after a few tries.
    """
    try:
        url = httpx.URL(base)
    except httpx.InvalidURL as error:
        raise InputError(f"{base}: not an address ({error}); it begins with https://") from error
    local = url.scheme == "http" and url.host in ("127.0.0.1", "localhost")
    if not (local or (url.scheme == "https" and url.host)):
        raise InputError(f"{base}: files are fetched by https only (http is for 127.0.0.1); use an https:// address")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name in FILES if _wrong(folder / name, name)]
        if origin is not None:
            if problems := check(origin, missing):
                raise InputError(listed(problems))
            for name in missing:
                part = _part(folder, name)
                shutil.copyfile(origin / name, part)
                _accept(part, folder / name)
                on_progress(name, FILES[name][0], FILES[name][0])
        elif missing:
            _download(missing, base, folder, on_progress)
    except OSError as error:
        where = error.filename or folder
        raise InputError(f"{where}: {error.strerror}; ESRP_CACHE=DIR keeps the data in DIR") from error


def check(folder: Path, names: Collection[str] | None = None) -> list[str]:
    """Everything wrong with the files in ``folder`` (of all, or of these names), one line each.

    A file may be missing, or have the wrong size or checksum.
    """
    wrongs = {name: _wrong(folder / name, name) for name in (FILES if names is None else names)}
    return [f"{folder / name}: {wrong}; the right file is at {PAGE}" for name, wrong in wrongs.items() if wrong]


def is_complete(folder: Path) -> bool:
    """Whether every file is there with the right size; reads none of them."""
    return all(_size(folder / name) == size for name, (size, _) in FILES.items())


def _download(names: list[str], base: str, folder: Path, on_progress: Progress) -> None:
    """Receive files over one connection; what an earlier call left of a file is resumed."""
    try:
        # The environment's proxies are obeyed. Files are asked for uncompressed, so that bytes can be counted.
        client = httpx.Client(timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"})
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        message = f"the proxy named by the environment cannot be used ({first_line(error)}); correct or unset it"
        raise EngineError(message) from error
    with client:
        for name in names:
            part, size = _part(folder, name), FILES[name][0]
            if (_size(part) or 0) >= size:
                part.unlink()  # too long to be the beginning of this file
            resumed = (_size(part) or 0) > 0
            url = f"{base.rstrip('/')}/{name}"
            _receive(client, url, part, partial(on_progress, name), size)
            # Where the whole is wrong, what lay there may have been the beginning of another file. So the file is
            # received once more from its first byte, before the server is blamed.
            if resumed and _wrong(part, name):
                part.unlink()
                _receive(client, url, part, partial(on_progress, name), size)
            _accept(part, folder / name)


def _receive(client: httpx.Client, url: str, part: Path, report: Callable[[int, int], None], size: int) -> None:
    """Receive what ``part`` lacks of a file of ``size`` bytes, in a few tries; EngineError after the last of them."""
    for wait in (*BACKOFF_S, None):
        have = _size(part) or 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            with client.stream("GET", url, headers=headers) as response:
                response.raise_for_status()
                # A server that cannot resume sends all of it, and the file starts over.
                with part.open("ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                        report(file.tell(), size)
            return
        except httpx.HTTPError as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            # A dropped connection and a busy or failing server may pass; any other answer would be the same again.
            if status is None:
                transient = isinstance(error, httpx.TransportError)
            else:
                transient = status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS
            if wait is None or not transient:
                reason = f"the server answered {status}" if status else first_line(error)
                message = f"{url}: cannot be fetched ({reason}); without network, {_BY_HAND}"
                raise EngineError(message) from error
            time.sleep(wait)


def _accept(part: Path, place: Path) -> None:
    """Move a received file into its place, synced; where it is wrong, remove it and raise InputError."""
    wrong = _wrong(part, place.name)
    if wrong:
        part.unlink()
        raise InputError(f"{place}: what was received is not this file ({wrong}) and was removed; {_BY_HAND}")
    # The content is on the disk before the name is, and the name before this returns: a crash leaves no torn file.
    sync(part)
    part.replace(place)
    sync(place.parent)


def _wrong(path: Path, name: str) -> str | None:
    """What is wrong with the file at ``path``, which is to be the data set's file ``name``; None where it is right."""
    size, expected = FILES[name]
    have = _size(path)
    if have is None:
        return "missing"
    if have != size:
        return f"{have} bytes found, {size} expected"
    found = sha256(path)
    return None if found == expected else f"sha256 {found} found, {expected} expected"


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.part"
