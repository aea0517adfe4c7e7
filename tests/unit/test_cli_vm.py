"""`vswitchctl vm` and `vswitchctl import`, over the REST API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from served_api import Served, served_api

from vswitchctl.model.vm_views import LibvirtNetworkView, NicRequest, NicView, VmView

MAC, OTHER = "52:54:00:aa:00:01", "52:54:00:aa:00:02"
VIEWS = (
    VmView(
        domain="db 1",
        uuid="u-1",
        state="running",
        problem="NIC 3 has no MAC address",
        nics=(
            NicView(
                mac=MAC, type="ethernet", device="vnet0", bridge="br-a", topology="pair", network="web",
                entity=f"interfaces/db1:{MAC}", status="in-sync", addresses=("10.1.0.5/24",),
                addresses_from="topology",
            ),
            NicView(mac=OTHER, device="vnet1", addresses=("10.9.0.5/24",), addresses_from="lease"),
        ),
    ),
    VmView(
        domain="later",
        nics=(
            NicView(
                mac=MAC, topology="pair", entity=f"interfaces/later:{MAC}", network="web", status="pending",
                reason="there is no domain 'later' yet",
            ),
        ),
    ),
    VmView(domain="bare", uuid="u-2", state="shut off"),
)  # fmt: skip


@pytest.fixture
def api() -> Iterator[Served]:
    with served_api() as served:
        served.service.vm_views = VIEWS
        yield served


@pytest.fixture
def cli(api: Served, tmp_path: Path) -> CommandLine:
    return CommandLine(api.socket, tmp_path)


def test_nics_with_where_they_are(cli: CommandLine) -> None:
    result = cli.run("vm", "list")
    assert (result.code, result.err) == (0, "")
    header, first, second, third, bare, *reasons = (line.rstrip() for line in result.out.splitlines())
    assert header.split() == [
        "DOMAIN", "STATE", "NIC", "TAP", "BRIDGE", "NETWORK", "STATUS", "ADDRESSES", "ENTITY",
    ]  # fmt: skip
    assert first.split() == [
        "db", "1", "running", MAC, "vnet0", "br-a", "web", "in-sync", "10.1.0.5/24",
        f"pair/interfaces/db1:{MAC}",
    ]  # fmt: skip
    assert second.split()[2:] == ["running", OTHER, "vnet1", "not", "declared", "10.9.0.5/24", "(lease)"]
    assert third.split()[:4] == ["later", "not", "defined", MAC]
    assert bare.split() == ["bare", "shut", "off"]
    assert [line for line in reasons if line] == [
        "db 1: NIC 3 has no MAC address",
        f"interfaces/later:{MAC} is pending: there is no domain 'later' yet",
    ]
    views = json.loads(cli.run("vm", "list", "--json").out)
    assert tuple(VmView.model_validate(view) for view in views) == VIEWS


def test_networks(cli: CommandLine, api: Served) -> None:
    api.service.network_views = (
        LibvirtNetworkView(name="default", uri="u", forward="nat", bridge="virbr0", kind="linux-bridge"),
        LibvirtNetworkView(name="lan", uri="u", active=False, portgroups=("a", "b"), topology="pair"),
    )
    _, default, lan = (line.split() for line in cli.run("vm", "networks").out.splitlines())
    assert default == ["default", "yes", "nat", "virbr0", "linux-bridge"]
    assert lan == ["lan", "no", "a,", "b", "pair"]


def test_attach_and_detach(cli: CommandLine, api: Served) -> None:
    result = cli.run("vm", "attach", "db 1", MAC, "--model", "e1000", "--config")
    assert (result.code, result.out, result.err) == (0, f"attached {MAC} to db 1\n", "")
    assert api.service.attached == [("db 1", NicRequest(mac=MAC, model="e1000", config=True))]
    result = cli.run("vm", "detach", "db 1", MAC)
    assert (result.code, result.out) == (0, f"asked db 1 to let go of {MAC}\n")
    assert api.service.detached == [("db 1", MAC, False)]

    result = cli.run("vm", "attach", "no", MAC)
    assert (result.code, result.err) == (1, "error: no domain 'no'; list them: vswitchctl vm list\n")
    for mac, said in (
        ("52:54", "a MAC address is six pairs of hex digits"),
        ("01:00:5e:00:00:01", "this is a multicast MAC address"),
        (MAC.upper(), "a NIC is named by its MAC address in lower case"),
    ):
        result = cli.run("vm", "attach", "db 1", mac)
        assert result.code == 1
        assert result.err.startswith(f"error: mac: {said}"), result.err


def test_import_writes_a_topology(cli: CommandLine) -> None:
    result = cli.run("import", "libvirt", "--name", "all", "--tenant", "red")
    assert (result.code, result.err) == (0, "")
    assert result.out.split() == ["name:", "all", "tenants:", "red:", "{}"]
    assert cli.run("import", "libvirt", "-o", "all.yaml").out == ""
    assert "name: discovered" in (cli.directory / "all.yaml").read_text()
    assert cli.run("validate", "all.yaml").code == 0


@pytest.mark.parametrize("group", ["vm", "import"])
def test_a_group_alone_tells_its_commands(cli: CommandLine, group: str) -> None:
    result = cli.run(group)
    assert (result.code, result.err) == (0, "")
    assert "Commands" in result.out
