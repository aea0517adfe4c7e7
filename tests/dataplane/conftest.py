"""Fixtures on real daemons. Every test has its own; a missing program fails the test that needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from instances import HostNamespace, Ovs, database, host_namespace, open_vswitch, short_directory

import vswitchctl.intent
from vswitchctl.drivers.openflow import OpenFlowDriver


@pytest.fixture
def host_ns() -> Iterator[HostNamespace]:
    """A network namespace that plays the host: `.name`, `.run(*argv)`, `with .enter():`."""
    with host_namespace() as host:
        yield host


@pytest.fixture
def ovs(host_ns: HostNamespace) -> Iterator[Ovs]:
    """A private Open vSwitch, datapath netdev, running inside `host_ns`.

    `.db` remote 'unix:...', `.rundir`, and the witnesses `.vsctl(*args)`, `.ofctl(*args)`, `.appctl(*args)`.
    `.kill(program)`, `.end(program)`, `.start_vswitchd()` and `.start_database()` play crashes and restarts.
    """
    with open_vswitch(host_ns) as instance:
        yield instance


@pytest.fixture
def make_ovs(host_ns: HostNamespace) -> Iterator[Callable[..., Ovs]]:
    """`make_ovs(host=None, dummy=False)`: as many instances as a test wants; dummy ones need no devices."""
    with contextlib.ExitStack() as stack:

        def make(host: HostNamespace | None = None, dummy: bool = False) -> Ovs:
            return stack.enter_context(open_vswitch(host or host_ns, dummy))

        yield make


@pytest.fixture
def bridge(make_ovs: Callable[..., Ovs]) -> Iterator[tuple[Ovs, OpenFlowDriver]]:
    """A bridge `br0` without ports, and our session with it."""
    ovs = make_ovs(dummy=True)
    ovs.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "fail_mode=secure")
    driver = OpenFlowDriver(ovs.rundir)
    driver.connect(["br0"])
    try:
        yield ovs, driver
    finally:
        driver.close()


@pytest.fixture
def make_host_ns() -> Iterator[Callable[[], HostNamespace]]:
    """`make_host_ns()`: further namespaces, for tests with several hosts."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(host_namespace())


@pytest.fixture
def intent_db_socket() -> Iterator[Path]:
    """The socket of a private ovsdb-server that holds an empty database of vswitchctl's schema."""
    with database(Path(vswitchctl.intent.__file__).with_name("vswitchctl.ovsschema")) as socket:
        yield socket


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A private directory with a path short enough for Unix sockets."""
    with short_directory() as directory:
        yield directory
