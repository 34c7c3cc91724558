"""Errors that a user can cause or cure. Each message states the problem, the value and the cure."""

import re
import reprlib
import unicodedata

LONGEST_NAME = 250  # letters; MLflow takes no longer names of metrics and params
_VALUE_SHOWN = 200  # letters of a value in a message
# Marks that turn the order of letters, and line ends: with them a terminal shows what does not stand there
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, _VALUE_SHOWN, _VALUE_SHOWN, 60
# Of an address, anywhere in a text: USER:PASSWORD@ (the password may contain @) and the query value ?password=
_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S+(@)|([?&;]password=)[^&;\s'\"]+", re.IGNORECASE)


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
    """Return the text with every password in an address replaced by three dots."""
    return _PASSWORD.sub(lambda match: f"{match[1] or match[3]}...{match[2] or ''}", text)


def show(value: object) -> str:
    """Return a value as a message shows it: as Python writes it, in at most 200 letters, without hidden characters."""
    try:
        text = str(value) if isinstance(value, BaseException) else _SHORT.repr(value)
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
    if len(name) > LONGEST_NAME:
        return f"is {_SHORT.repr(name)[:60]}, with {len(name):,} characters. {LONGEST_NAME} are the most"
    hidden = next((letter for letter in name if _is_hidden(letter)), "")
    return f"is {show(name)}, with the control character {hidden.encode('unicode_escape').decode()}" if hidden else ""


def _is_hidden(letter: str) -> bool:
    return letter in _BIDI or unicodedata.category(letter) in _HIDDEN_CATEGORIES
