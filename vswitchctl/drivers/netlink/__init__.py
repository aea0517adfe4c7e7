"""The kernel's network namespaces, Linux bridges and veth pairs, by rtnetlink."""

from vswitchctl.drivers.netlink.driver import NetlinkDriver

__all__ = ["NetlinkDriver"]
