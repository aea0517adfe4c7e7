"""TAPs of virtual machines: taken from the Linux bridge where libvirt put them, and put back there.

The device is libvirt's. Our mark in its alias says that we hold it and where it goes back, so the mark comes
before anything else, goes last, and ends with the device.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from vswitchctl.drivers.netlink import message
from vswitchctl.drivers.netlink.parse import TAP, Link
from vswitchctl.drivers.netlink.requests import Batch, Work
from vswitchctl.model.plan import Change
from vswitchctl.model.state import ROOT, TapSpec

GONE = (errno.ENODEV,)
"""Answers for a machine that ended meanwhile: nothing is left to do, and there is an event."""


def alias(spec: TapSpec) -> str:
    return f"{spec.owner.alias} {spec.former}".rstrip()


def take(work: Work, changes: Sequence[Change]) -> None:
    """Mark each, take it from its Linux bridge to the wanted one or none, and bring it up.

    One that is gone again is left.
    """
    batch = Batch()
    for change in changes:
        name, spec = str(change.key), change.desired
        link = _tap(work, name)
        if link is None:
            continue
        if not link.alias or link.tap_mark is not None:
            batch.add(change, message.set_link(name, alias=alias(spec)), GONE)
            batch.add(change, message.set_link(name, master=_master(work, change, link), up=True), GONE)
        else:
            work.fail(change, f"TAP '{name}' has an alias that is not ours: '{link.alias}'; remove it")
    work.send(ROOT, batch)
    work.done(len(changes))


def give_back(work: Work, changes: Sequence[Change]) -> None:
    """Put each that carries our mark back into its Linux bridge, if that is there; the mark goes last."""
    batch = Batch()
    for change in changes:
        name = str(change.key)
        link = _tap(work, name)
        mark = link.tap_mark if link is not None else None
        if mark is None or mark[0] != change.owner:
            continue
        bridge = work.host.link(ROOT, mark[1]) if mark[1] else None
        if bridge is not None and bridge.kind == "bridge":
            batch.add(change, message.set_link(name, master=bridge.index), GONE)
        elif change.observed.master:
            batch.add(change, message.set_link(name, master=0), GONE)
        batch.add(change, message.set_link(name, alias=""), GONE)
    work.send(ROOT, batch)
    work.done(len(changes))


def _master(work: Work, change: Change, link: Link) -> int | None:
    """The ifindex of its master to be, 0 for none, None where nothing is to be changed."""
    wanted = change.desired.master
    if not wanted:
        return 0 if link.master else None
    bridge = work.host.link(ROOT, wanted)
    if bridge is None or bridge.kind != "bridge":
        work.fail(change, f"TAP '{link.name}' should be in Linux bridge '{wanted}', which is not there")
        return None
    return bridge.index


def _tap(work: Work, name: str) -> Link | None:
    link = work.host.link(ROOT, name)
    return link if link is not None and link.kind == TAP else None
