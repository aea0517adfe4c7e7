"""What the documents tell a reader to type exists, and so does every file they point to."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

from vswitchctl.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "vswitchctl/DESIGN.md",
    "vswitchctl/pipeline/PIPELINE.md",
    "docs/topology.md",
)

Located = tuple[str, int, str]
"""Document, line number, text."""


def shell_lines(document: str) -> list[Located]:
    """The lines of a document's ```sh blocks."""
    found, inside = [], False
    for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = line.strip() == "```sh"
        elif inside and line.strip():
            found.append((document, number, line))
    return found


def links(document: str) -> list[Located]:
    """Relative targets of a document's links and pictures."""
    return [
        (document, number, target)
        for number, line in enumerate((ROOT / document).read_text().splitlines(), 1)
        for target in re.findall(r"\]\(([^)#]+)\)", line)
        if "://" not in target
    ]


LINES = [line for document in DOCUMENTS for line in shell_lines(document)]
COMMANDS = [line for line in LINES if shlex.split(line[2], comments=True)[0] == "vswitchctl"]
LINKS = [link for document in DOCUMENTS for link in links(document)]


def place(located: Located) -> str:
    return f"{located[0]}:{located[1]}"


def parse(arguments: list[str]) -> Any:
    """The parsed command, as the command line itself would; nothing of it runs. Raises click's errors."""
    group: Any = typer.main.get_command(app)
    with group.make_context("vswitchctl", arguments, resilient_parsing=False) as context:
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        return command.make_context(name, rest, parent=context)


def test_the_readme_shows_the_whole_life_of_a_topology() -> None:
    shown = {shlex.split(line)[1] for document, _, line in COMMANDS if document == "README.md"}
    assert shown >= {"up", "validate", "plan", "apply", "show", "probe", "flows", "graph", "destroy", "down"}


@pytest.mark.parametrize("located", COMMANDS, ids=place)
def test_a_command_in_a_document_is_one(located: Located) -> None:
    parse(shlex.split(located[2], comments=True)[1:])


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    for arguments in (["aply", "FILE"], ["apply", "topologies/ring.py", "--nonsense"], ["apply"]):
        with pytest.raises(typer.BadParameter.__mro__[2]):
            parse(arguments)


@pytest.mark.parametrize("located", LINES, ids=place)
def test_the_files_a_command_names_are_there(located: Located) -> None:
    words = shlex.split(located[2], comments=True)
    files = [word for word in words if re.match(r"(scripts|topologies|tests|vswitchctl|docs)/", word)]
    assert [file for file in files if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("located", LINKS, ids=place)
def test_a_link_leads_somewhere(located: Located) -> None:
    document, _, target = located
    assert (ROOT / document).parent.joinpath(target).exists(), target


def test_directories_of_the_code_map_are_there() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert len(rows) > 10
    assert [row for row in rows if not (ROOT / row).exists()] == []


def test_no_package_of_the_code_is_missing_from_the_code_map() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = [path.parent for path in (ROOT / "vswitchctl").glob("*/__init__.py")]
    assert [path.name for path in packages if f"`vswitchctl/{path.name}/`" not in text] == []


def test_the_lock_pins_by_hash_and_names_no_index_and_no_path() -> None:
    """Each line is a comment, a pin or a hash; nothing says where packages come from."""
    for path in ROOT.glob("requirements*.txt"):
        lines = [line for line in path.read_text().splitlines() if line and not line.lstrip().startswith("#")]
        assert lines, path.name
        pin, digest = (
            re.compile(r"[a-z0-9][a-z0-9._-]*==\S+ \\"),
            re.compile(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?"),
        )
        other = [line for line in lines if not (pin.fullmatch(line) or digest.fullmatch(line))]
        assert not other, f"{path.name}: {other}"


def test_every_dependency_is_in_the_lock() -> None:
    """Where this fails, `scripts/lock` was not run after an edit of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        "requirements.txt": project["dependencies"],
        "requirements-test.txt": [*project["dependencies"], *project["optional-dependencies"]["test"]],
    }
    for file, requirements in wanted.items():
        locked = {
            plain(name) for name in re.findall(r"^([^\s=]+)==", (ROOT / file).read_text(), re.MULTILINE)
        }
        names = {plain(re.split(r"[<>=~!\[; ]", text)[0]) for text in requirements}
        assert names <= locked, f"{file}: {names - locked}"


def plain(name: str) -> str:
    """One spelling per package: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
