"""Waiting for many sources of events at once, the mount table among them."""

from __future__ import annotations

import os
import select
from typing import Protocol

READABLE, URGENT = select.EPOLLIN, select.EPOLLPRI
"""What a socket has when there is something to read, and the mount table when it changed: proc(5)."""


class _File(Protocol):
    def fileno(self) -> int: ...


Source = _File | int
"""Something with a descriptor, or the number of one."""


class Mounts:
    """The mount table of this process: ready, once, after each change. A mount on a file that is there is no
    event of the file's directory."""

    def __init__(self) -> None:
        self._descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)


class Watch:
    """Sources by name. Safe to call while another thread waits."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._names: dict[int, str] = {}

    def add(self, source: Source, name: str, events: int = READABLE) -> None:
        number = _number(source)
        self._names[number] = name
        self._epoll.register(number, events)

    def remove(self, source: Source) -> None:
        """Before it is closed, since its number is used again; one that was never added is no error."""
        number = _number(source)
        if self._names.pop(number, None) is not None:
            self._epoll.unregister(number)

    def ready(self, timeout: float | None) -> set[str]:
        """Names of the sources with something new. timeout: seconds, None to wait for one."""
        found = self._epoll.poll(timeout)
        return {self._names[number] for number, _ in found if number in self._names}

    def close(self) -> None:
        self._epoll.close()


def _number(source: Source) -> int:
    return source if isinstance(source, int) else source.fileno()
