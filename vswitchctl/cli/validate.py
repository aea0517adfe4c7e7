"""validate: everything wrong with a file, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli.context import FileArgument, JsonOption
from vswitchctl.cli.document import load_file
from vswitchctl.cli.output import print_findings, print_json, print_text

if TYPE_CHECKING:
    from vswitchctl.compiler.budget import AclCost
    from vswitchctl.model.topology import Topology
    from vswitchctl.topology.document import Document, Finding


def register(app: typer.Typer) -> None:
    app.command()(validate)


def validate(
    file: FileArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    json: JsonOption = False,
) -> None:
    """Check a topology file, without the daemon. Exit code 1 where it has errors."""
    document = load_file(file)
    costs, too_much = _acls(document)
    findings = (*document.findings, *too_much)
    valid = not document.errors and not too_much and not (strict and document.warnings)
    if json:
        acls = [{"acl": cost.name, "rules": len(cost.rules), "flows": cost.flows} for cost in costs]
        print_json({"file": str(file), "valid": valid, "findings": findings, "acls": acls})
    else:
        print_findings(findings)
        if document.topology is not None and valid:
            print_text(f"{file}: {_summary(document.topology)}")
            for cost in costs:
                flows = _counted(cost.flows, "flow")
                print_text(f"acl {cost.name}: {_counted(len(cost.rules), 'rule')}, {flows}")
    if not valid:
        raise typer.Exit(1)


def _summary(topology: Topology) -> str:
    counts = (
        (len(topology.networks), "network"),
        (len(topology.nodes), "node"),
        (len(topology.links), "link"),
    )
    texts = ", ".join(_counted(count, noun) for count, noun in counts)
    return f"topology '{topology.name}' is valid: {texts}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _acls(document: Document) -> tuple[tuple[AclCost, ...], tuple[Finding, ...]]:
    """What ACLs cost, and the findings about those that cost too much."""
    from vswitchctl.compiler.budget import acl_costs, over_budget
    from vswitchctl.topology.source import place_of_source

    topology = document.topology
    if topology is None:
        return (), ()
    costs, sources = acl_costs(topology), document.sources
    found = over_budget(costs, lambda path: place_of_source(sources.get("/".join(map(str, path)), "")))
    return costs, tuple(found)
