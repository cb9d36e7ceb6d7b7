"""How a server is connected with: key, proxies of the environment, and what is said of a proxy that is in the way."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from judge.errors import InputError, discreet

API_KEY = "ESRP_API_KEY"
"""The environment variable with the server's key, which is never written anywhere."""


def headers(variable: str = API_KEY) -> dict[str, str]:
    """The header with the key in a variable, where there is one; InputError where it cannot be sent, not showing it."""
    key = os.environ.get(variable)
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise InputError(f"{variable} holds blanks or characters that no key has; set it to the server's key alone")
    return {"Authorization": f"Bearer {key}"} if key else {}


def is_here(url: str) -> bool:
    """Whether an address is of this machine by its name, so that no proxy can lead there."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        number = ip_address(host)
    except ValueError:
        return False
    return number.is_loopback or number.is_unspecified


def connecting(url: str, key: str = API_KEY) -> dict[str, Any]:
    """The arguments of an httpx client for a server: its key, and no proxy where none is to be gone through.

    InputError where the key cannot be sent.
    """
    # Left to itself, httpx reads all proxies of the environment first, and fails at those that it cannot use.
    direct = {} if through(url) else {"trust_env": False, "verify": httpx.create_ssl_context()}
    return {"headers": headers(key), **direct}


def through(url: str) -> str:
    """What is to be known of the environment's proxy that requests to a server go through; empty where none does."""
    parts, proxies = urlsplit(url), getproxies()
    host = parts.hostname or ""
    name = next((name for name in (parts.scheme, "all") if proxies.get(name)), None)
    if name is None or is_here(url) or proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return ""
    proxy = discreet(proxies[name])
    return f" (through {proxy}, the proxy of the environment's {name.upper()}_PROXY; NO_PROXY={host} goes without it)"
