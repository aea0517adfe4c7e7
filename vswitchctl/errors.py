"""The errors of vswitchctl. Whether trying again can help is a property of the class.

VswitchctlError
 ├─ UserError            the person can fix it; one line says what to do
 │   ├─ InvalidTopology  a document with findings; nothing of it was applied
 │   ├─ Conflict         the device or name belongs to another topology or to somebody else
 │   └─ NotFound         no such topology, bridge, operation, ...
 ├─ RetryableError       the outside is not ready; the reconcile loop backs off and tries again
 │   ├─ Unreachable      a daemon, socket or database does not answer
 │   └─ ApplyError       the kernel, OVSDB or a switch refused one change
 └─ InternalError        a bug of ours: the encoder was asked for a flow its table does not allow, ...
"""

from __future__ import annotations

from typing import ClassVar


class VswitchctlError(Exception):
    """Base of the tree. `message` says what and why, `remedy` what to do about it."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class UserError(VswitchctlError):
    """Something the person asked for cannot be done as asked."""


class InvalidTopology(UserError):
    """A topology document has errors. `findings` holds every one of them."""

    def __init__(self, findings: tuple[object, ...]) -> None:
        lines = "\n".join(str(f) for f in findings)
        super().__init__(lines)
        self.findings = findings


class Conflict(UserError):
    """A device, name or number is taken by another topology or by somebody else."""


class NotFound(UserError):
    """The named thing does not exist."""


class RetryableError(VswitchctlError):
    """The same call may succeed later without anybody changing the topology."""

    retryable: ClassVar[bool] = True


class Unreachable(RetryableError):
    """A process, socket or database does not answer."""


class ApplyError(RetryableError):
    """The kernel, the database or the switch refused a change."""


class InternalError(VswitchctlError):
    """A defect of vswitchctl itself; never caused by input alone."""
