"""vm: virtual machines, and their NICs; import: what runs now as a topology file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import JsonOption, OutOption
from vswitchctl.cli.output import console, print_json, print_table, print_text, status_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text

    from vswitchctl.model.vm_views import NicView, VmView

VM_COLUMNS = ("DOMAIN", "STATE", "NIC", "TAP", "BRIDGE", "NETWORK", "STATUS", "ADDRESSES", "ENTITY")
NETWORK_COLUMNS = ("NAME", "ACTIVE", "FORWARD", "BRIDGE", "KIND", "PORT GROUPS", "TOPOLOGY")

vm_app = typer.Typer(help="Virtual machines of libvirt's: list them, attach and detach NICs.")
import_app = typer.Typer(help="Write a topology file of what runs now.")

DomainArgument = Annotated[str, typer.Argument(metavar="DOMAIN", help="A domain's name or UUID.")]
MacArgument = Annotated[str, typer.Argument(metavar="MAC", help="The NIC's MAC address.")]
ConfigOption = Annotated[
    bool, typer.Option("--config", help="In the domain's configuration, too, for its next start.")
]


def register(app: typer.Typer) -> None:
    app.add_typer(vm_app, name="vm")
    app.add_typer(import_app, name="import")


@vm_app.callback(invoke_without_command=True)
@import_app.callback(invoke_without_command=True)
def choose(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@vm_app.command("list")
def list_vms(ctx: typer.Context, json: JsonOption = False) -> None:
    """List domains and their NICs: TAP, bridge, network, status, addresses."""
    with context.client(ctx) as client:
        views = client.vms()
    if json:
        print_json(views)
        return
    print_table(VM_COLUMNS, (row for view in views for row in _rows(view)))
    _print_reasons(views)


def _rows(view: VmView) -> Iterator[Sequence[str | Text]]:
    head = (view.domain, view.state or "not defined")
    for nic in view.nics:
        yield (*head, *_nic(nic))
    if not view.nics:
        yield (*head, "", "", "", "", "", "", "")


def _nic(nic: NicView) -> Sequence[str | Text]:
    status = status_text(nic.status) if nic.status is not None else "not declared"
    said = f" ({nic.addresses_from})" if nic.addresses_from not in ("", "topology") else ""
    entity = f"{nic.topology}/{nic.entity}" if nic.topology else ""
    addresses = ", ".join(nic.addresses) + said
    return nic.mac, nic.device, nic.bridge, nic.network, status, addresses, entity


def _print_reasons(views: Sequence[VmView]) -> None:
    from rich.text import Text

    terminal = console()
    for view in views:
        if view.problem:
            terminal.print(Text.assemble((view.domain, "bold"), f": {view.problem}"))
        for nic in view.nics:
            if nic.status is not None and nic.reason:
                said = (nic.entity, "bold"), " is ", status_text(nic.status), f": {nic.reason}"
                terminal.print(Text.assemble(*said))


@vm_app.command("networks")
def networks(ctx: typer.Context, json: JsonOption = False) -> None:
    """List libvirt's networks, and the Linux bridges that are neither libvirt's nor a topology's."""
    with context.client(ctx) as client:
        views = client.libvirt_networks()
    if json:
        print_json(views)
        return
    rows = (
        (
            view.name, "yes" if view.active else "no", view.forward, view.bridge, view.kind,
            ", ".join(view.portgroups), view.topology,
        )
        for view in views
    )  # fmt: skip
    print_table(NETWORK_COLUMNS, rows)


@vm_app.command("attach")
def attach(
    ctx: typer.Context,
    domain: DomainArgument,
    mac: MacArgument,
    model: Annotated[str, typer.Option("--model", help="The card that the guest sees.")] = "virtio",
    config: ConfigOption = False,
) -> None:
    """Attach a NIC to a running domain; it is plugged where a topology declares it."""
    from pydantic import ValidationError

    from vswitchctl.errors import UserError
    from vswitchctl.model.vm_views import NicRequest

    try:
        request = NicRequest(mac=mac, model=model, config=config)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from error
    with context.client(ctx) as client:
        client.attach(domain, request)
    print_text(f"attached {mac} to {domain}")


@vm_app.command("detach")
def detach(
    ctx: typer.Context, domain: DomainArgument, mac: MacArgument, config: ConfigOption = False
) -> None:
    """Detach a NIC from a running domain; it is gone once the guest lets go of it."""
    with context.client(ctx) as client:
        client.detach(domain, mac, config=config)
    print_text(f"asked {domain} to let go of {mac}")


@import_app.command("libvirt")
def import_libvirt(
    ctx: typer.Context,
    output: OutOption = None,
    name: Annotated[str, typer.Option("--name", help="The topology's name.")] = "discovered",
    tenant: Annotated[str, typer.Option("--tenant", help="Whose everything is.")] = "local",
) -> None:
    """Write libvirt's domains, networks and bridges as they are: a topology whose plan has no changes."""
    from vswitchctl.topology.networkx_io import dump_yaml

    with context.client(ctx) as client:
        text = dump_yaml(client.discover(name, tenant))
    if output is None:
        print_text(text)
    else:
        output.write_text(text, encoding="utf-8")
