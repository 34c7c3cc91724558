"""The address of a tracking store or a queue: read in one place, and refused before a driver shows parts of it."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from skillscale.errors import InputError, without_password

_PAIRS = re.compile(
    r"(?:^|[\s;])(?:host|hostaddr|dbname|user|password|server|driver|uid|pwd|data source)\s*=", re.IGNORECASE
)
SERVERS = ("http", "https", "databricks")


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine that an address names; the port is None where the address has none."""

    name: str
    port: int | None


def read_host(address: str) -> Host | None:
    """Return the machine of the address of a database or a server, None where it names none.

    Raises:
        InputError: the address can't be read.
    """
    if address.partition(":")[0] in SERVERS:
        return _read_server(address)
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:  # without its text, which may hold the password
        raise _unreadable(address) from error
    if "@" in (url.host or ""):
        raise _unreadable(address)
    return Host(name=url.host, port=url.port) if url.host else None


def check_form(address: str, option: str) -> None:
    """Refuse a connection string of libpq or ODBC, which is no URL and no path of a file.

    Raises:
        InputError: with the form that is taken.
    """
    if "://" not in address and _PAIRS.search(address):
        raise InputError(
            f"{option} takes a URL, but {without_password(address)!r} is a connection string. Write "
            "postgresql+psycopg2://USER:PASSWORD@HOST/NAME"
        )


def _read_server(address: str) -> Host | None:
    try:
        parts = urlsplit(address)
        return Host(name=parts.hostname, port=parts.port) if parts.hostname else None
    except ValueError as error:
        raise _unreadable(address) from error


def _unreadable(address: str) -> InputError:
    return InputError(
        f"the address {without_password(address)!r} can't be read. In a user or a password write @ as %40, / as %2F, "
        "# as %23, : as %3A and % as %25"
    )
