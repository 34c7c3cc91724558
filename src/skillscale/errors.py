"""Errors that a user can cause or cure. Each message states the problem, the value and the cure."""

import re

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
