"""The root of the errors of one machine's gate: each says what was expected, what came, and what to do.

LocalError
    SandboxError             the sandbox could not be made
        PathRefusedError     a folder or socket may not be opened, or hides what the program needs
        CommandError         the command is not there inside, or can't be executed
        DescriptorError      an inherited descriptor leads out

Other modules of this package add their own, beside what they describe.
"""

from __future__ import annotations


class LocalError(Exception):
    """`code` is stable; `remedy` is what the person at the keyboard can do."""

    code = "LocalError"

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class SandboxError(LocalError):
    """The sandbox could not be made; the program was not started."""

    code = "SandboxFailed"
    # As `env` and container engines use it: what was asked for could not be started.
    exit_code = 125


class PathRefusedError(SandboxError):
    """A path that was asked for can't be opened to the program, or one that it needs is hidden."""

    code = "PathRefused"


class CommandError(SandboxError):
    """The command is not visible inside the sandbox, or can't be executed there."""

    code = "CommandNotStarted"


class DescriptorError(SandboxError):
    """Standard input, output or error is something that leads past the sandbox."""

    code = "DescriptorRefused"
