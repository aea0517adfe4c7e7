"""The OpenFlow driver: a bridge's flows as bytes, changed in atomic bundles, drift noticed by event."""

from vswitchctl.drivers.openflow.driver import OpenFlowDriver
from vswitchctl.drivers.openflow.meters import ObservedMeters
from vswitchctl.drivers.openflow.observed import FlowFailure, ObservedFlows

__all__ = ["FlowFailure", "ObservedFlows", "ObservedMeters", "OpenFlowDriver"]
