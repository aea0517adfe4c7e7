"""The log of ACLs with real packets: what makes a line, what does not, and how many there are."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.conftest import ROOT, Stack, run, until
from tests.system.test_acl import ask, inside, process, server
from tests.system.test_reject import CLIENT, OTHER, WEB, closes_at_once, example, ping, told

__all__ = ["told"]
"""A fixture: the README's policy that rejects, applied."""


def with_rules(acl: str, **changes: Any) -> str:
    """The example with keys of every rule of an ACL changed."""
    data = yaml.safe_load(example())
    data["acls"][acl] = [{**rule, **changes} for rule in data["acls"][acl]]
    return yaml.safe_dump(data, sort_keys=False)


def lines(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.json("acls", *arguments, "--log")
    return found


def test_the_readme_says_what_is_logged(told: tuple[Stack, Path]) -> None:
    stack, file = told
    assert "Packet filtered" in ping("other", WEB[0])
    said = "web-told/web 2 reject in web:eth0: icmp type 8 code 0 10.1.0.22 > 10.1.0.11"
    assert f"vswitchctl acls web --log  # {said}\n" in (ROOT / "README.md").read_text()
    assert said in [line.partition(" ")[2] for line in stack.cli("acls", "web", "--log").splitlines()]
    (line,) = [line for line in lines(stack, "web-told/web") if "icmp type 8" in line["packet"]]
    assert (line["acl"], line["rule"], line["verdict"], line["bridge"]) == ("web", 2, "reject", "br-b")
    assert lines(stack, "client") == []
    wanted = (
        "acl=web-told/web rule=2 verdict=reject direction=in interface=web:eth0 bridge=br-b "
        'packet="icmp type 8 code 0 10.1.0.22 > 10.1.0.11"'
    )
    assert wanted in stack.log()
    stack.cli("plan", str(file))  # what was read back is what was compiled: nothing is left to do


def test_of_a_connection_that_is_allowed_its_first_packet_is_logged(told: tuple[Stack, Path]) -> None:
    stack, file = told
    file.write_text(with_rules("web", log=True))
    stack.apply(file)
    with server("web", 80):
        for version in (0, 1):
            for _ in range(2):
                assert ask("client", WEB[version], 80, patience=8) == "question"
    found = [line["packet"] for line in lines(stack, "web") if line["rule"] == 1]
    assert [packet.partition(":")[0] for packet in found[:2]] == [f"tcp {CLIENT[0]}"] * 2
    assert [packet.partition("]")[0] for packet in found[2:]] == [f"tcp [{CLIENT[1]}"] * 2
    assert all(packet.endswith(":80") for packet in found)
    (allow, _) = stack.json("acls", "web")
    assert allow["packets"] >= 4 * 3, "all of them count; SYN, ACK and data of each"


SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.connect((sys.argv[1], 53))
    asking.settimeout(5)
    for _ in range(int(sys.argv[2])):
        asking.send(b"x")
        if sys.argv[3] == "answered":
            asking.recv(10)
"""
RECEIVE = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answering:
    answering.bind(("0.0.0.0", 53))
    print("ready", flush=True)
    while True:
        data, asker = answering.recvfrom(10)
        if sys.argv[1] == "answered":
            answering.sendto(data, asker)
"""


@pytest.mark.parametrize(("answers", "expected"), [("silent", 3), ("answered", 1)])
def test_of_udp_a_line_is_made_for_each_packet_until_it_is_answered(
    told: tuple[Stack, Path], answers: str, expected: int
) -> None:
    """What conntrack calls new: nobody but the other side can say that it is a connection."""
    stack, file = told
    file.write_text(with_rules("web", action="allow", protocol="udp", ports=[53], log=True))
    stack.apply(file)
    with process("web", RECEIVE, answers) as receiving:
        assert receiving.stdout is not None
        assert receiving.stdout.readline() == "ready\n"
        run(*inside("other", SEND, WEB[0], "3", answers))
        run(*inside("other", SEND, WEB[0], "1", "unasked"))  # what a bridge sends up comes in order
    until(lambda: len(lines(stack, "web")) > expected, "lines of what was sent")
    ports = [re.findall(r":(\d+) >", line["packet"])[0] for line in lines(stack, "web")]
    assert ports[:-1] == ports[:1] * expected
    assert ports[-1] != ports[0]


def test_what_a_sender_s_own_rule_denies_is_logged_at_its_interface(told: tuple[Stack, Path]) -> None:
    stack, file = told
    file.write_text(with_rules("client", log={"rate": 1000}))
    stack.apply(file)
    with server("other", 25):
        assert closes_at_once("client", OTHER[1], 25)
    (line,) = [line for line in lines(stack, "client") if line["rule"] == 2]
    assert (line["verdict"], line["direction"], line["interface"]) == ("reject", "out", "client:eth0")
    assert (line["bridge"], line["description"]) == ("br-a", "no mail")
    assert ask("other", CLIENT[0], 80) == "silence"
    denied = [line for line in lines(stack, "client") if line["rule"] == 1]
    assert denied and all(line["verdict"] == "deny" and line["direction"] == "in" for line in denied)


def test_a_burst_makes_no_more_lines_than_the_rule_s_rate(told: tuple[Stack, Path]) -> None:
    """Ten thousand datagrams at once, at ten lines a second."""
    stack, _ = told
    burst = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
    burst += f"for n in range(10000): s.sendto(b'x',('{WEB[0]}',5000+n%1000))"
    started = time.monotonic()
    run(*inside("other", burst))
    until(lambda: lines(stack, "web"), "a line of the burst")
    found = lines(stack, "web")
    assert len(found) <= 10 + 10 * (time.monotonic() - started)

    def left_out() -> bool:
        closes_at_once("other", WEB[0], 81)
        return any(line["left_out"] for line in lines(stack, "web"))

    until(left_out, "a later line counts those left out")


def test_follow_shows_lines_as_packets_come(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    argv = [sys.executable, "-m", "vswitchctl.cli.main", "acls", "--log", "--follow"]
    with subprocess.Popen(argv, env=stack.env, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            for address in WEB:
                ping("other", address)
                while "type" not in (line := following.stdout.readline()) or address not in line:
                    assert line, "it ended"
        finally:
            following.kill()


def test_without_the_daemon_nothing_is_logged_and_nothing_else_changes(told: tuple[Stack, Path]) -> None:
    stack, file = told
    file.write_text(with_rules("web", log=True))
    stack.apply(file)
    with server("web", 80):
        stack.kill_daemon()
        assert ask("client", WEB[0], 80, patience=8) == "question"
        assert ask("client", WEB[0], 81) == "silence"
        stack.cli("up")
        assert ask("client", WEB[0], 80, patience=8) == "question"
    until(lambda: lines(stack, "web"), "the log goes on")
    assert lines(stack, "web")[0]["number"] == 1
