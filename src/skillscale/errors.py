"""The errors a user can cause or cure. Each message says what is wrong, the value, and what to do."""

import re

# USER:PASSWORD@ anywhere in a text, with any @ inside; and ?password=, as drivers take it
_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S+(@)|([?&;]password=)[^&;\s'\"]+", re.IGNORECASE)


def without_password(text: str) -> str:
    """Return an address, or a text that holds addresses, as it may be shown."""
    return _PASSWORD.sub(lambda match: f"{match[1] or match[3]}...{match[2] or ''}", text)


class SkillscaleError(Exception):
    """Base of every error that the command line prints as one line, without a traceback."""


class InputError(SkillscaleError, ValueError):
    """A value that the user gave can't be used: a parameter, a config key, a data file."""


class FitError(SkillscaleError, ValueError):
    """The data can't support the fit that was asked for; the message says which runs would."""


class TrackingError(SkillscaleError, RuntimeError):
    """The tracking store can't be reached, read or written."""


class LeaseLostError(TrackingError):
    """The point of this process was given to another one, which believed it gone."""


class TrainingError(SkillscaleError, RuntimeError):
    """Training that can't go on for now: out of disk, a damaged checkpoint. The point can be trained again."""


class DamagedCheckpointError(TrainingError):
    """A checkpoint that can't be read: half of it was written when the disk or the machine failed."""


class DivergedError(TrainingError):
    """A run whose loss left the numbers. The same settings would do it again, so the point is recorded as failed."""


class DataError(SkillscaleError, RuntimeError):
    """Data can't be downloaded, verified or written."""
