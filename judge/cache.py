"""Where this package keeps what it can make or fetch again; knows no more than that folder's place."""

from __future__ import annotations

import os
from pathlib import Path

from judge.errors import InputError


def cache_folder() -> Path:
    """Folder for what can be made or fetched again, absolute; it need not exist yet.

    ``$ESRP_CACHE``, or else ``$XDG_CACHE_HOME/esrp-judge`` (where that is absolute, as its specification asks),
    or else ``~/.cache/esrp-judge``. InputError where no variable is set and there is no home folder.
    """
    try:
        return _cache_folder().expanduser().absolute()
    except RuntimeError as error:
        message = "the cache has no place, as this user has no home folder; set ESRP_CACHE to a folder"
        raise InputError(message) from error


def _cache_folder() -> Path:
    if own := os.environ.get("ESRP_CACHE"):
        return Path(own)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path("~/.cache")) / "esrp-judge"
