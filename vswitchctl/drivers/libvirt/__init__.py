"""Domains and networks of libvirt, over any number of connections; only read, never changed."""

from vswitchctl.drivers.libvirt.driver import LibvirtDriver

__all__ = ["LibvirtDriver"]
