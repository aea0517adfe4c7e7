"""Rules that reject, with real packets: who is told what, on one bridge and across two."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.system.conftest import ROOT, Stack, run
from tests.system.test_acl import CLIENT, OTHER, TALK, WEB, apply_lan, ask, inside, process, say, server


def example() -> str:
    """The README's policy that rejects."""
    (found,) = re.findall(r"```yaml\n(name: web-told\n.*?)```", (ROOT / "README.md").read_text(), re.S)
    return str(found)


def changed(**rules: str) -> str:
    """The example with the action of rules changed, by description."""
    data = yaml.safe_load(example())
    for acl in data["acls"].values():
        for rule in acl:
            rule["action"] = rules.get(rule.get("description", ""), rule["action"])
    return yaml.safe_dump(data, sort_keys=False)


@pytest.fixture
def told(stack: Stack, tmp_path: Path) -> Iterator[tuple[Stack, Path]]:
    file = tmp_path / "web-told.yaml"
    apply_lan(stack, file, example())
    yield stack, file


def ping(namespace: str, address: str) -> str:
    return run(*("ip", "netns", "exec", namespace, "ping", "-c", "1", "-W", "2", address), check=False)


def closes_at_once(namespace: str, address: str, port: int, kind: str = "tcp") -> bool:
    """Whether it is refused, and that long before a sender would have given up by itself."""
    return ask(namespace, address, port, kind, patience=8) == "refused"


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_the_receiver_s_rule_tells_senders_on_both_bridges(told: tuple[Stack, Path], version: int) -> None:
    with server("web", 80, 81):
        for namespace in ("client", "other"):
            assert ask(namespace, WEB[version], 80, patience=8) == "question"
            assert closes_at_once(namespace, WEB[version], 81)
            assert closes_at_once(namespace, WEB[version], 53, "udp")
            said = ping(namespace, WEB[version])
            assert "Packet filtered" in said or "Administratively prohibited" in said
            assert f"From {WEB[version]}" in said


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_the_sender_s_own_rule_tells_it(told: tuple[Stack, Path], version: int) -> None:
    with server("other", 25, 80):
        assert ask("client", OTHER[version], 80, patience=8) == "question"
        assert closes_at_once("client", OTHER[version], 25)
        assert ask("other", CLIENT[version], 80) == "silence", "its rules for what comes in deny"


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_a_connection_that_is_rejected_now_is_reset(told: tuple[Stack, Path], version: int) -> None:
    stack, file = told
    with server("web", 80), process("client", TALK, WEB[version], "80") as talking:
        assert say(talking, "one") == "one"
        file.write_text(changed(web="reject"))
        stack.apply(file)
        assert say(talking, "two") == "reset"


def test_without_the_daemon_it_is_denied_and_nobody_told(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    with server("web", 80, 81):
        assert closes_at_once("client", WEB[0], 81)
        stack.kill_daemon()
        assert ask("client", WEB[0], 81) == "silence"
        assert ask("client", WEB[0], 80) == "question"
        stack.cli("up")
        assert closes_at_once("client", WEB[0], 81)


def test_a_burst_of_refused_packets_is_answered_within_the_limit(told: tuple[Stack, Path]) -> None:
    """Ten thousand datagrams at once: the switch lets some up, and goes on answering afterwards."""
    stack, _ = told
    burst = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
    burst += f"for n in range(10000): s.sendto(b'x',('{WEB[0]}',5000+n%1000))"
    started = time.monotonic()
    run(*inside("other", burst))
    took = time.monotonic() - started
    stats = stack.ofctl("meter-stats", "br-b")
    found = re.search(r"packet_in_count:(\d+).*?0: packet_count:(\d+)", stats, re.S)
    assert found is not None, stats
    seen, dropped = int(found[1]), int(found[2])
    assert seen > 0
    assert seen - dropped <= 1000 * (took + 2) + 50
    assert closes_at_once("other", WEB[0], 81)


def test_the_readme_says_what_is_seen(told: tuple[Stack, Path]) -> None:
    stack, file = told
    cost, answer = "acl web: 2 rules, 3 flows", "From 10.1.0.11 icmp_seq=1 Packet filtered"
    assert cost in stack.cli("validate", str(file)).splitlines()
    assert answer in ping("other", WEB[0])
    shown = (ROOT / "README.md").read_text()
    assert f"# {cost}\n" in shown and f"# {answer}\n" in shown
    assert hits(stack, "web")[1][2] >= 1


def hits(stack: Stack, acl: str) -> list[tuple[int, str, int]]:
    return [(view["number"], view["action"], view["packets"]) for view in stack.json("acls", acl)]


def test_counters_say_which_rule_was_hit(told: tuple[Stack, Path]) -> None:
    """Rules with several peers and ports count as one; packets of both verdicts count."""
    stack, file = told
    before = {number: packets for number, _, packets in hits(stack, "web-told/web")}
    with server("web", 80, 81):
        assert ask("other", WEB[0], 80, patience=8) == "question"
        assert closes_at_once("other", WEB[0], 81)
        assert closes_at_once("other", WEB[1], 81)
    (_, allow, allowed), (_, reject, rejected) = hits(stack, "web")
    assert (allow, reject) == ("allow", "reject")
    assert allowed - before[1] >= 3, "the side that opens it sends SYN, ACK and data"
    assert rejected - before[2] >= 2
    assert hits(stack, "client")[1] == (2, "reject", 0)
    with server("other", 25):
        assert closes_at_once("client", OTHER[0], 25)
    assert hits(stack, "client")[1][2] >= 1
    shown = stack.cli("acls", "web").splitlines()
    assert shown[1].split()[:6] == ["web-told/web", "1", "in", "allow", "tcp", "80"]
    assert f"{file.name}:" in shown[1]
