"""Writes what a server and a device can load, and proves that it answers as the model does."""


class ExportError(RuntimeError):
    """An export failed for a reason that is not the user's input; nothing was left behind."""
