"""A document as loaded: the topology, where each entity stands in its source, and every finding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from vswitchctl.errors import InvalidTopology
from vswitchctl.model.topology import Topology

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a document.

    file, line: where (line 0 where the source has no lines). path: e.g. 'nodes.web1.interfaces.eth0.ip',
    '' for the document as a whole. message: what is wrong and why. remedy: what would be right.
    """

    severity: Severity
    file: str
    line: int
    path: str
    message: str
    remedy: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        parts = [self.place, self.severity, *([self.path] if self.path else []), self.message]
        return ": ".join(parts) + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class Document:
    """topology: None where the document has an error. sources: entity ('nodes/web1') -> 'file:line'."""

    topology: Topology | None
    sources: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "warning")

    def require(self) -> Topology:
        """The topology; raises InvalidTopology with every error where there is one."""
        if self.topology is None or self.errors:
            raise InvalidTopology(self.errors)
        return self.topology


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By file and line, each once; at one place errors stand before warnings."""
    return tuple(
        sorted(dict.fromkeys(findings), key=lambda f: (f.file, f.line, f.severity, f.path, f.message))
    )
