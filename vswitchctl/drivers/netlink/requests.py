"""Requests for one namespace and the changes that they belong to; deleting many links at once."""

from __future__ import annotations

import errno
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vswitchctl.drivers.netlink import message
from vswitchctl.drivers.netlink.host import Host
from vswitchctl.drivers.netlink.reader import Place
from vswitchctl.model.plan import Change, Failure

GROUPS = range(0x76000100, 0x7F000000)
"""Device groups (IFLA_GROUP) for links about to go: far from the small numbers that people use."""


@dataclass(slots=True)
class Batch:
    """Requests for one namespace, which change each belongs to, and what of it each is about."""

    changes: list[Change] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    tolerated: list[frozenset[int]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def add(self, change: Change, request: bytes, tolerated: Iterable[int] = (), part: str = "") -> None:
        """tolerated: the errors that mean that there is nothing left to do. part: 'address 10.1.0.1/24'."""
        self.parts.append(part)
        self.changes.append(change)
        self.requests.append(request)
        self.tolerated.append(frozenset(tolerated))


class Work:
    """One call of `apply`: what failed, and which namespaces must be read again."""

    def __init__(self, host: Host, progress: Callable[[int], None]) -> None:
        self.host = host
        self.touched: set[str] = set()
        self._progress = progress
        self._failed: dict[int, Failure] = {}

    def failures(self) -> list[Failure]:
        return list(self._failed.values())

    def fail(self, change: Change, text: str) -> None:
        """Note the first reason of a change; later ones follow from it."""
        self._failed.setdefault(id(change), Failure(change, text))

    def good(self, changes: Iterable[Change]) -> Iterator[Change]:
        return (change for change in changes if id(change) not in self._failed)

    def done(self, count: int) -> None:
        if count:
            self._progress(count)

    def send(self, namespace: str, batch: Batch, say: Callable[[Change, OSError], str] | None = None) -> None:
        if not batch.requests:
            return
        self.touched.add(namespace)
        answers = self.host.channels[namespace].run(batch.requests)
        rows = zip(batch.changes, answers, batch.tolerated, batch.parts, strict=True)
        for change, error, tolerated, part in rows:
            if error is not None and error.errno not in tolerated:
                self.fail(change, say(change, error) if say else refused(change, error, part))

    def unfinished(self) -> Iterator[Place]:
        """Devices that a crash left between being made and being marked."""
        for namespace, inside in self.host.contents.items():
            for link in inside.links.values():
                if link.unfinished:
                    yield Place(namespace, link)

    def delete(self, doomed: Mapping[Place, Change | None]) -> None:
        """Delete links of ours: one grace period of the kernel for all in a namespace, 31 ms, not each."""
        by_namespace: dict[str, dict[str, Change | None]] = defaultdict(dict)
        for place, change in doomed.items():
            by_namespace[place.namespace][place.link.name] = change
        # From the root namespace first: what goes there takes its other end along.
        for namespace in sorted(by_namespace):
            self._delete_in(namespace, by_namespace[namespace])

    def _delete_in(self, namespace: str, names: Mapping[str, Change | None]) -> None:
        self.touched.add(namespace)
        group = self._free_group(namespace)
        requests = [message.set_link(name, group=group) for name in names]
        *answers, deleted = self.host.channels[namespace].run([*requests, message.delete_group(group)])
        for change, answer in zip(names.values(), answers, strict=True):
            error = answer or deleted
            if change is not None and error is not None and error.errno != errno.ENODEV:
                self.fail(change, refused(change, error))

    def _free_group(self, namespace: str) -> int:
        inside = self.host.contents.get(namespace)
        taken = {link.group for link in inside.links.values()} if inside is not None else set()
        while (group := secrets.choice(GROUPS)) in taken:
            continue
        return group


def refused(change: Change, error: OSError, part: str = "") -> str:
    what = f"{part} of {change.kind}" if part else change.kind
    return f"the kernel refused {what} '{change.name}': {error.strerror}"
