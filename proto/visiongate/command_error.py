"""The error that the `visiongate` command shows as one sentence."""


class CommandError(Exception):
    """A failure of a command that its user can mend. The text is one sentence for the user."""
