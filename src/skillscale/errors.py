"""Errors that a user can cause or cure, and how they show values: short, without secrets and hidden characters.

Each message states the problem, the value and the cure.
"""

import re
import reprlib
import unicodedata

LONGEST_NAME = 250  # letters; MLflow takes no longer names of metrics and params
_VALUE_SHOWN = 200  # letters of a value in a message
# Marks that turn the order of letters, and line ends: with them a terminal shows what does not stand there
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
# Where the user of an address is no secret: of a database it is a name, of anything else it may be a token
_EXAMPLE = "USER:PASSWORD"  # in messages that show how to write an address
_DATABASES = ("postgres", "mysql", "mariadb", "mssql", "oracle", "cockroachdb")
_SCHEME = re.compile(r"(?:^|(?<=[^\w.+%:@/#-]))([A-Za-z][\w.+-]*)://")
_PORT = re.compile(r"\d{1,5}(?![^\s/?#'\"),;])")
_HIDDEN_KEYS = (
    r"(?:\w*_)?(?:ssl)?(?:pass(?:word|wd|phrase|code)|pwd|secret|token|api[_-]?key|(?:secret_)?access[_-]?key(?:_id)?|"
    r"account[_-]?key|shared[_-]?access[_-]?(?:key|signature)|private[_-]?key|credentials?|sig|signature)"
)
_PAIR = re.compile(
    rf"(?<![\w-])((?:x-amz-(?:signature|credential|security-token)|odbc_connect|pgpassword|{_HIDDEN_KEYS})"
    r"[\"']?\s*=\s*)"
    r"(?![01]?(?:\.\d+)?(?:[,;\s]|$))"  # a share of a mix
    r"(\{(?:[^}]|\}\})*\}|'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|[^;&\n]*(?=;\s*(?:[\w .-]+=|$))|"
    r"(?:(?!&[\w-]+=)\S)+?(?=[\"')\]}>,.]*(?:\s|$)|&[\w-]+=))",
    re.IGNORECASE,
)
_JSON_PAIR = re.compile(rf"([\"']{_HIDDEN_KEYS}[\"']\s*:\s*)(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')", re.IGNORECASE)
_QUOTED_PAIR = re.compile(r"((?:password|pwd|secret|token)%3d)(?:(?!%3b|&)\S)*?(?=%3b|[&\s'\"]|$)", re.IGNORECASE)
_HEADER = re.compile(r"\b(bearer|basic) +[\w.~+/=-]{8,}", re.IGNORECASE)
_TOKEN = re.compile(
    r"\b(?:dapi[0-9a-f]{20,}|hf_\w{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|"
    r"xox[abp]-[\w-]{10,}|A(?:KIA|SIA)[0-9A-Z]{12,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*)"
)
# An address without its scheme, before what looks like a host
_BARE = re.compile(
    r"(?<![\w.+%:-])([\w.+%-]*:)(?![/.]|PASSWORD@)[^\s@'\"]+@(?=localhost\b|[\w-]+(?:\.[\w-]+)+|[A-Za-z][\w-]*(?::\d|/)|\[)"
)


class SkillscaleError(Exception):
    """Base of every error that the command line prints as one line, without a traceback."""


class InputError(SkillscaleError, ValueError):
    """An unusable value from the user: a parameter, a config key or a data file."""


class FitError(SkillscaleError, ValueError):
    """A fit that the data can't support. The message says which runs would support it."""


class TrackingError(SkillscaleError, RuntimeError):
    """A tracking store that can't be reached, read or written."""


class LeaseLostError(TrackingError):
    """A lease that another process took over because this one seemed dead."""


class TrainingError(SkillscaleError, RuntimeError):
    """A temporary failure of training: a full disk, a damaged checkpoint. The point can be trained again."""


class DamagedCheckpointError(TrainingError):
    """An unreadable checkpoint: the disk or the machine failed while it was written."""


class DivergedError(TrainingError):
    """A run that diverged. The same settings would diverge again, so the point is recorded as failed."""


class DataError(SkillscaleError, RuntimeError):
    """Data that can't be downloaded, verified or written."""


def without_password(text: str) -> str:
    """Return the text with three dots in place of every secret: in addresses, connection strings, headers and tokens.

    An address may be a part of the text, and may be written wrongly: in doubt more is hidden.
    """
    text = "".join(_hide_user(part) for part in _split_addresses(text))
    text = _PAIR.sub(r"\1...", _JSON_PAIR.sub(r'\1"..."', text))
    text = _HEADER.sub(r"\1 ...", _TOKEN.sub("...", _QUOTED_PAIR.sub(r"\1...", text)))
    return _BARE.sub(r"\1...@", text) if "@" in text else text


def _split_addresses(text: str) -> list[str]:
    """Return the text in parts, each of which has at most one address, at its start."""
    if "://" not in text:
        return [text]
    starts = [match.start() for match in _SCHEME.finditer(text)]
    ends = [*starts[1:], len(text)] if starts else []
    return (
        [text[: starts[0]], *(text[start:end] for start, end in zip(starts, ends, strict=True))] if starts else [text]
    )


def _hide_user(text: str) -> str:
    """Return a text that starts with an address without what stands before its last ``@``."""
    match = _SCHEME.match(text)
    if match is None or "@" not in text:
        return text
    scheme, start = match[1].lower(), match.end()
    end = next((at for at in range(start, len(text)) if text[at].isspace()), len(text))
    first, colon, rest = text[start:end].partition(":")
    if "@" not in text[start:end]:
        # A password with a space: what follows the colon is no port
        line_end = text.find("\n", start) if "\n" in text[start:] else len(text)
        if not colon or "/" in first or _PORT.match(rest) or "@" not in text[start : min(line_end, end + 200)]:
            return text
        end = min(line_end, end + 200)
    user, _, _ = text[start:end].rpartition("@")
    host, slash, _ = user.partition("/")
    if slash and ":" not in host and scheme.startswith("http") and ("." in host or host == "localhost"):
        return text  # the @ belongs to the path
    if user == _EXAMPLE:
        return text
    name, colon, _ = user.partition(":")
    is_shown = scheme.startswith(_DATABASES) and re.fullmatch(r"[\w.@%+~-]*", name)
    shown = (f"{name}:..." if colon else name) if is_shown else "..."
    return f"{text[:start]}{shown}{text[start + len(user) :]}"


class _Short(reprlib.Repr):
    """``repr`` in few letters, which hides secrets before it cuts a text."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, _VALUE_SHOWN, _VALUE_SHOWN, 60

    def repr_str(self, value: str, level: int) -> str:
        return super().repr_str(without_password(value), level)


_SHORT = _Short()


def safe_text(text: str) -> str:
    """Return a text as it may leave the process: without secrets, and with hidden characters as escapes."""
    return escape_hidden(without_password(text))


def show(value: object) -> str:
    """Return a value as a message shows it: as Python writes it, in at most 200 letters, without hidden characters."""
    try:
        text = without_password(str(value)) if isinstance(value, BaseException) else _SHORT.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "a whole number of thousands of digits"
    text = escape_hidden(" ".join(text.split()))
    return f"{text[: _VALUE_SHOWN - 3]}..." if len(text) > _VALUE_SHOWN else text


def escape_hidden(text: str) -> str:
    """Return a text whose control characters, bidi marks and lone surrogates are written as escapes of Python."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter if letter in "\n\t" or not _is_hidden(letter) else letter.encode("unicode_escape").decode()
        for letter in text
    )


def name_fault(name: str) -> str:
    """Return why a name can't be taken, its length or a hidden character; nothing if it can."""
    if len(name) <= LONGEST_NAME and name.isascii() and name.isprintable():
        return ""
    if len(name) > LONGEST_NAME:
        return f"is {_SHORT.repr(name)[:60]}, with {len(name):,} characters. {LONGEST_NAME} are the most"
    hidden = next((letter for letter in name if _is_hidden(letter)), "")
    return f"is {show(name)}, with the control character {hidden.encode('unicode_escape').decode()}" if hidden else ""


def _is_hidden(letter: str) -> bool:
    return letter in _BIDI or unicodedata.category(letter) in _HIDDEN_CATEGORIES
