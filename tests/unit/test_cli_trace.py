"""trace on the command line and over HTTP: what is asked arrives, and what is answered is shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from command_line import CommandLine
from served_api import Served, served_api

from vswitchctl.model.trace import Hop, TraceRequest, TraceView, Way


@pytest.fixture
def api() -> Iterator[Served]:
    with served_api() as served:
        yield served


@pytest.fixture
def cli(api: Served, tmp_path: object) -> CommandLine:
    return CommandLine(api.socket, tmp_path)  # type: ignore[arg-type]


def view(delivered: bool) -> TraceView:
    hops = (
        Hop(bridge="br-a", table="classify", priority=100, match="in_port=1", words="in by a → then acl_to"),
        Hop(bridge="br-a", table="qos_to", priority=0, words="anything → then output"),
        Hop(bridge="br-a", table="acl_to", priority=0, words="anything → denied", entity="t/acls/web", rule=3,
            source="web.yaml:31"),
    )  # fmt: skip
    sentence = "blocked by acl web rule 3 (web.yaml:31)"
    way = Way(packet="tcp", bridge="br-a", verdict="blocked", sentence=sentence, hops=hops, decided=2)
    return TraceView(source="a:eth0", to="b:eth0", sentence=sentence, delivered=delivered, forth=way)


def test_the_sentence_comes_first_and_the_deciding_flow_is_marked(cli: CommandLine, api: Served) -> None:
    api.service.trace_views["a"] = view(delivered=False)
    result = cli.run("trace", "a", "b", "--tcp", "80", "--ip", "6", "--packet", "nw_ttl=1")
    assert result.code == 2
    lines = result.out.splitlines()
    assert lines[0] == "blocked by acl web rule 3 (web.yaml:31)"
    assert lines[2] == "there: tcp"
    assert [line.split()[:3] for line in lines[4:]] == [["br-a", "classify", "in"], ["►", "br-a", "acl_to"]]
    assert lines[-1].endswith("t/acls/web rule 3 (web.yaml:31)")
    (asked,) = api.service.traced
    assert asked == TraceRequest(source="a", to="b", protocol="tcp", port=80, version=6, packet="nw_ttl=1")


def test_what_arrives_exits_with_0_and_json_is_the_view(cli: CommandLine, api: Served) -> None:
    api.service.trace_views["a"] = view(delivered=True)
    result = cli.run("trace", "a", "b", "--json")
    assert result.code == 0
    assert TraceView.model_validate_json(result.out) == view(delivered=True)
    assert api.service.traced[-1].protocol == "icmp"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tcp", "80", "--udp", "53"), "a packet is of one protocol"),
        (("--ip", "5"), "there is no IP version 5"),
        ((), "no end 'a'"),
    ],
)
def test_what_cannot_be_traced_is_said(cli: CommandLine, arguments: tuple[str, ...], message: str) -> None:
    result = cli.run("trace", "a", "b", *arguments)
    assert result.code == 1
    assert message in result.err


def test_a_request_that_is_none_is_refused(api: Served) -> None:
    assert api.http.post("/trace", json={"source": "a"}).status_code == 422
    assert api.http.post("/trace", json={"source": "a", "to": "b", "port": 70000}).status_code == 422
    assert api.http.post("/trace", json={"source": "a", "to": "b"}).status_code == 404
