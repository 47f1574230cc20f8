"""What can go wrong, by the exit status that it ends in."""

from __future__ import annotations


class BatchNlpError(Exception):
    """A failure that ends in one clear line on the terminal.

    Attributes
    ----------
    exit_status : int
        What the process exits with.
    """

    exit_status = 1

    def __str__(self) -> str:
        r"""Give the line; what came into it from a file cannot break it or steer a terminal.

        Examples
        --------
        >>> str(BatchNlpError("odd value: a\nb\x1b[2J"))
        'odd value: a\ufffdb\ufffd[2J'
        """
        line = super().__str__()
        return "".join(each if each.isprintable() else "\ufffd" for each in line)


class InputError(BatchNlpError):
    """The configuration or the input is at fault, and the user can put it right."""

    exit_status = 2


class ArtifactError(BatchNlpError):
    """A trained model is missing, damaged, or made by libraries that this one cannot read."""


class GateError(BatchNlpError):
    """A trained model is not good enough to be put in use."""


class LockedError(BatchNlpError):
    """Another process holds what this one needs: nothing is wrong, and a later try may do."""
