"""Fixtures on a real libvirtd with real guests. A missing program fails the test that needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.hypervisor import Hypervisor, HypervisorStack, hypervisor


@pytest.fixture
def host() -> Iterator[Hypervisor]:
    """A hypervisor with libvirtd, in namespaces of its own; nothing of it is left afterwards."""
    with hypervisor() as it:
        yield it


@pytest.fixture
def stack(host: Hypervisor) -> Iterator[HypervisorStack]:
    """A running vswitchctl on `host`; afterwards it takes down what it holds, which must succeed."""
    host.stack.cli("up")
    try:
        yield host.stack
        for view in host.stack.json("show", "topologies"):
            host.stack.cli("destroy", view["name"], "--yes")
    finally:
        host.stack.cli("down", "--purge")
