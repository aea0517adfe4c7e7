"""What both OVSDB clients need of ovs' Idl and it lacks: a fast parser, and descriptors above 1023."""

from vswitchctl.ovsidl.jsonrpc import adopt
from vswitchctl.ovsidl.poll import Poll, use_poll

__all__ = ["Poll", "adopt", "use_poll"]
