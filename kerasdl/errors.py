"""What went wrong because of the user or the machine: each is one line, without a traceback."""


class UserError(ValueError):
    """What the user gave cannot be used; the message says what was wrong and what is allowed."""


class SizesDiffer(UserError):
    """Images of several sizes, and none is given that they shall have."""


class UsageError(UserError):
    """A command line that cannot be understood."""


class TrainingError(Exception):
    """Training cannot go on: the loss is not a number, or the disk is full."""


class CheckpointError(Exception):
    """A checkpoint could not be written or read."""


class ExportError(RuntimeError):
    """An export failed for a reason that is not the user's input; nothing was left behind."""


REPORTED = (UserError, TrainingError, CheckpointError, ExportError)  # one line, exit status 2
