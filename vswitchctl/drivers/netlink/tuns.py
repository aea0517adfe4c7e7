"""TUN devices in namespaces of ours, for programs that move packets and not frames.

The kernel makes a persistent one without an alias. But in a namespace of ours, a TUN device under the name
that we want can only be what a crash left, so it is taken as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vswitchctl.drivers.netlink import kernel, message
from vswitchctl.drivers.netlink.addresses import set_addresses
from vswitchctl.drivers.netlink.channel import within
from vswitchctl.drivers.netlink.requests import Batch, Work, refused
from vswitchctl.model.plan import Change
from vswitchctl.model.state import TunSpec


def replaced(there: TunSpec, wanted: TunSpec) -> bool:
    """Whether it is made anew: under another name, or without its user, which the kernel cannot take back."""
    return there.name != wanted.name or (there.user is not None and wanted.user is None)


def make(work: Work, changes: Sequence[Change]) -> None:
    """Bring the TUN device of each namespace to its desired state, from none or another."""
    for change in changes:
        namespace, spec = str(change.key), change.desired
        if namespace not in work.host.channels:
            work.fail(change, f"namespace '{namespace}' of '{spec.name}' is not there, or not ours")
            continue
        try:
            within(namespace, partial(_make, spec, change.observed))
            index = work.host.channels[namespace].index(spec.name)
        except OSError as error:
            work.fail(change, refused(change, error))
            continue
        work.send(namespace, _settings(change, spec, index))
    work.done(len(changes))


def _make(spec: TunSpec, there: TunSpec | None) -> None:
    """One that is right is not opened: the program that holds it would be in the way."""
    if there is None or replaced(there, spec) or (there.user, there.kept) != (spec.user, True):
        kernel.make_tun(spec.name, spec.user)
    kernel.forward()


def _settings(change: Change, spec: TunSpec, index: int) -> Batch:
    batch = Batch()
    batch.add(change, message.set_link(spec.name, alias=spec.owner.alias, up=True, mtu=spec.mtu))
    there = frozenset[str]()
    if change.observed is not None and not replaced(change.observed, spec):
        there = change.observed.addresses
    set_addresses(change, index, spec.addresses, there, batch)
    return batch
