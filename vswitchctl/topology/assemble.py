"""From what a reader made of a text to a Document: shape, then meaning, then the findings of both."""

from __future__ import annotations

from collections.abc import Callable

from vswitchctl.model.topology import Topology, link_name, split_end
from vswitchctl.topology.document import Document, Finding, in_order
from vswitchctl.topology.shape import Shape, check_shape
from vswitchctl.topology.source import MarkedDict, Path, Place, Source, path_text, place_of
from vswitchctl.topology.subject import Issue
from vswitchctl.topology.validate import issues


def assemble(source: Source) -> Document:
    """The Document of a source. Where reading failed, its findings alone. Never raises."""
    if source.data is None:
        if not source.findings:
            source.error(0, (), "the document is empty", "a topology has at least a name: 'name: my-network'")
        return Document(None, {}, in_order(source.findings))
    shape = check_shape(source.data, source.place)
    told = {(finding.line, finding.path) for finding in source.findings}
    findings = source.findings + [f for f in shape.findings if (f.line, f.path) not in told]
    if shape.topology is None or not isinstance(source.data, MarkedDict):
        return Document(None, {}, in_order(findings))
    placing = _Placing(source, shape)
    findings += [placing.finding(issue) for issue in issues(shape.topology, shape.broken)]
    failed = any(finding.severity == "error" for finding in findings)
    topology = None if failed else shape.topology
    return Document(topology, entity_sources(shape.topology, placing.place), in_order(findings))


class _Placing:
    """Where a path of the checked topology was written; without the malformed links, numbers differ."""

    def __init__(self, source: Source, shape: Shape) -> None:
        self.source = source
        self.links = shape.links

    def place(self, path: Path) -> Place:
        return place_of(self.source.data, self._in_document(path), self.source.place)

    def finding(self, issue: Issue) -> Finding:
        at = self.place(issue.path)
        path = path_text(self._in_document(issue.path))
        return Finding(issue.severity, at.file, at.line, path, issue.message, issue.remedy)

    def _in_document(self, path: Path) -> Path:
        if len(path) > 1 and path[0] == "links" and isinstance(path[1], int):
            return (path[0], self.links[path[1]], *path[2:])
        return path


def entity_sources(topology: Topology, place: Callable[[Path], Place]) -> dict[str, str]:
    """Entity ('nodes/web1', 'interfaces/web1:eth0', 'links/a--b', 'topology') -> 'file:line'."""
    sources = {"topology": str(place(("name",)))}
    for section in ("tenants", "networks", "nodes"):
        for name in getattr(topology, section):
            sources[f"{section}/{name}"] = str(place((section, name)))
    for end in topology.endpoints():
        node, interface = split_end(end)
        sources[f"interfaces/{end}"] = str(place(("nodes", node, "interfaces", interface)))
    for section in ("acls", "routers"):
        for name in getattr(topology, section):
            sources[f"{section}/{name}"] = str(place((section, name)))
    for number, link in enumerate(topology.links):
        sources[f"links/{link_name(link)}"] = str(place(("links", number)))
    return sources
