"""What the driver and the changes it makes share: open channels, what was last read, and what is whose."""

from __future__ import annotations

from dataclasses import dataclass, field

from vswitchctl.drivers.netlink import kernel
from vswitchctl.drivers.netlink.channel import Channel
from vswitchctl.drivers.netlink.parse import Link
from vswitchctl.drivers.netlink.reader import Contents
from vswitchctl.model.state import ROOT, Owner, parse_alias


@dataclass(slots=True)
class Host:
    """The network namespace that it is made in, as '', and our named ones.

    names: further names under /run/netns: None for somebody else's namespace, an owner where a crash left the
    bare name of one of ours. dropped: namespaces whose channels are to be closed.
    """

    channels: dict[str, Channel] = field(default_factory=dict)
    contents: dict[str, Contents] = field(default_factory=dict)
    names: dict[str, Owner | None] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    inode: int = field(default_factory=kernel.own_namespace)

    def link(self, namespace: str, name: str) -> Link | None:
        """The device as last read, whosever it is."""
        inside = self.contents.get(namespace)
        return inside.links.get(name) if inside is not None else None

    def mark(self, owner: Owner) -> str:
        """What the file under a namespace's mount says: the owner, and which host's it is."""
        return f"{owner.alias} {self.inode}"

    def marked(self, name: str) -> Owner | None:
        """Whose the bare name of a namespace is; None where it is not of this host."""
        alias, _, inode = kernel.read_mark(name).rpartition(" ")
        return parse_alias(alias) if inode == str(self.inode) else None

    def is_foreign(self, name: str) -> bool:
        """Whether a name under /run/netns is somebody else's namespace."""
        return name != ROOT and name in self.names and self.names[name] is None
