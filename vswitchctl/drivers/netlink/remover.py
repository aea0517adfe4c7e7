"""Removals: links all at once, then the names of namespaces; each only if it still carries our mark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vswitchctl.drivers.netlink import kernel, taps
from vswitchctl.drivers.netlink.reader import Place, are_peers, ends_by_owner
from vswitchctl.drivers.netlink.requests import Work, refused
from vswitchctl.model.plan import Change, Kind
from vswitchctl.model.state import ROOT


class Remover(Work):
    """What is gone already, or no longer ours, is left as it is, and is no failure."""

    def run(self, changes: Sequence[Change]) -> None:
        given_back = [change for change in changes if change.kind is Kind.TAP]
        taps.give_back(self, given_back)
        changes = [change for change in changes if change.kind is not Kind.TAP]
        self._dropping = {str(change.key) for change in changes if change.kind is Kind.NAMESPACE}
        doomed: dict[Place, Change | None] = dict.fromkeys(self.unfinished())
        ends = ends_by_owner(self.host.contents)
        for change in changes:
            if change.kind is Kind.LINUX_BRIDGE:
                doomed.update(dict.fromkeys(self._bridge(change), change))
            elif change.kind is Kind.VETH:
                doomed.update(dict.fromkeys(self._links(ends.get(str(change.key), [])), change))
            elif change.kind is Kind.TUN:
                doomed.update(dict.fromkeys(self._tun(change), change))
        self.delete(doomed)
        self.done(sum(change.kind is not Kind.NAMESPACE for change in changes))
        for change in changes:
            if change.kind is Kind.NAMESPACE:
                self._drop(change)
        self.done(sum(change.kind is Kind.NAMESPACE for change in changes))

    def _bridge(self, change: Change) -> Iterator[Place]:
        link = self.host.link(ROOT, str(change.key))
        if link is not None and link.kind == "bridge" and link.owner == change.owner:
            yield Place(ROOT, link)

    def _tun(self, change: Change) -> Iterator[Place]:
        """It goes with its namespace, unless a process keeps that."""
        link = self.host.link(str(change.key), change.observed.name)
        if link is not None and link.tun is not None and link.marked == change.owner:
            yield Place(str(change.key), link)

    def _links(self, ends: Sequence[Place]) -> Sequence[Place]:
        """What to delete of a pair: one end where both are known, none where its namespace goes anyway.

        A process may keep that namespace, so an end outside is deleted rather than left to go with it.
        """
        staying = [end for end in ends if end.namespace not in self._dropping]
        pair = len(ends) == 2 and are_peers(ends[0], ends[1], self.host.contents)
        return staying[:1] if pair else staying

    def _drop(self, change: Change) -> None:
        name = str(change.key)
        inside = self.host.contents.get(name)
        owner = inside.owner if inside is not None else self.host.names.get(name)
        if owner != change.owner:
            return
        self.touched.add(name)
        # Our own sockets inside would keep it alive.
        self.host.dropped.add(name)
        try:
            kernel.drop_namespace(name)
        except FileNotFoundError:
            return
        except OSError as error:
            self.fail(change, refused(change, error))
