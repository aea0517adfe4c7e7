"""ACLs with real packets: the README's example, rules taken away, and a neighbour of the same addresses."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.system.conftest import ROOT, Stack, run

WEB, CLIENT, OTHER = ("10.1.0.11", "fd00:1::11"), ("10.1.0.21", "fd00:1::21"), ("10.1.0.22", "fd00:1::22")
RULE_80 = "    - {direction: in, action: allow, protocol: tcp, ports: [80], from: {group: clients}}\n"

SERVER = """
import socket, sys, threading
def serve(family, port):
    listener = socket.create_server(("::" if family == socket.AF_INET6 else "0.0.0.0", port), family=family)
    def loop():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=echo, args=(connection,), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()
def echo(connection):
    while data := connection.recv(100):
        connection.sendall(data)
for port in map(int, sys.argv[1:]):
    serve(socket.AF_INET, port)
    serve(socket.AF_INET6, port)
print("ready", flush=True)
sys.stdin.read()
"""
ASK = """
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asking:
    asking.settimeout(float(sys.argv[4]))
    try:
        asking.connect((address, port))
        asking.send(b"question")
        print(asking.recv(100).decode())
    except ConnectionRefusedError:
        print("refused")
    except TimeoutError:
        print("silence")
"""
TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as talking:
    talking.settimeout(1.5)
    for line in sys.stdin:
        try:
            talking.send(line.encode())
            print(talking.recv(100).decode().strip(), flush=True)
        except TimeoutError:
            print("silence", flush=True)
        except ConnectionResetError:
            print("reset", flush=True)
"""


def example() -> str:
    """The README's policy."""
    (found,) = re.findall(r"```yaml\n(name: web-acl\n.*?)```", (ROOT / "README.md").read_text(), re.S)
    return str(found)


def neighbour() -> str:
    """The same addresses for another tenant, in a topology of its own, with everything open."""
    text = yaml.safe_load(example())
    interfaces = {n: node["interfaces"] for n, node in text["nodes"].items() if "interfaces" in node}
    nodes = {
        f"blue-{name}": {
            "kind": "namespace",
            "tenant": "blue",
            "interfaces": {"eth0": {"network": "blue-web", "ip": found["eth0"]["ip"]}},
        }
        for name, found in interfaces.items()
    }
    data = {
        "name": "blue",
        "tenants": {"blue": {}},
        "networks": {"blue-web": {"tenant": "blue", "subnets": ["10.1.0.0/24", "fd00:1::/64"]}},
        "nodes": {"br-blue": {"kind": "bridge"}, **nodes},
        "links": [{"ends": [f"{name}:eth0", "br-blue"]} for name in nodes],
    }
    data["nodes"]["blue-web"]["interfaces"]["eth0"]["acls"] = "open"
    data["acls"] = {"open": [{"direction": "in", "action": "allow"}]}
    return yaml.safe_dump(data)


def inside(namespace: str, program: str, *arguments: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, sys.executable, "-c", program, *arguments]


@contextlib.contextmanager
def process(namespace: str, program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv = inside(namespace, program, *arguments)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


@contextlib.contextmanager
def server(namespace: str, *ports: int) -> Iterator[None]:
    with process(namespace, SERVER, *map(str, ports)) as started:
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        yield


def ask(namespace: str, address: str, port: int, kind: str = "tcp", patience: float = 1.5) -> str:
    return run(*inside(namespace, ASK, kind, address, str(port), str(patience))).strip()


def pings(namespace: str, address: str) -> bool:
    said = run("ip", "netns", "exec", namespace, "ping", "-c", "1", "-W", "1", address, check=False)
    return " 0% packet loss" in said


def say(talking: subprocess.Popen[str], word: str) -> str:
    assert talking.stdin is not None and talking.stdout is not None
    talking.stdin.write(f"{word}\n")
    talking.stdin.flush()
    return talking.stdout.readline().strip()


def apply_lan(stack: Stack, file: Path, text: str) -> None:
    """Write and apply a topology of namespaces 'web', 'client' and 'other', ready to talk."""
    file.write_text(text)
    stack.apply(file)
    for namespace in ("web", "client", "other"):
        # IPv6 addresses are usable once duplicate address detection is through (RFC 4862).
        run("ip", "netns", "exec", namespace, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", check=False)


@pytest.fixture
def web(stack: Stack, tmp_path: Path) -> Iterator[tuple[Stack, Path]]:
    file = tmp_path / "web-acl.yaml"
    apply_lan(stack, file, example())
    yield stack, file


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_the_web_is_served_to_its_clients_and_nothing_else_is(web: tuple[Stack, Path], version: int) -> None:
    with server("web", 80, 8050, 8200), server("client", 80), server("other", 80):
        assert ask("client", WEB[version], 80, patience=8) == "question"
        assert ask("client", WEB[version], 8050) == "question"
        assert ask("client", WEB[version], 8200) == "silence"
        assert ask("other", WEB[version], 80) == "silence"
        assert pings("other", WEB[version])
        assert ask("web", CLIENT[version], 80) == ask("other", CLIENT[version], 80) == "silence"
        assert not pings("other", CLIENT[version])
        assert ask("client", OTHER[version], 80) == "question"
        assert pings("client", OTHER[version])


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_errors_about_a_connection_pass(web: tuple[Stack, Path], version: int) -> None:
    """Nothing listens there: its kernel says so by ICMP, to a client whose interface nobody may open."""
    assert ask("client", OTHER[version], 9999, "udp", patience=8) == "refused"


def test_a_rule_taken_away_ends_its_connections_and_no_other(web: tuple[Stack, Path]) -> None:
    stack, file = web
    with (
        server("web", 80, 443),
        process("client", TALK, WEB[0], "80") as ending,
        process("client", TALK, WEB[0], "443") as going_on,
    ):
        assert say(ending, "one") == "one" and say(going_on, "one") == "one"
        file.write_text(example().replace(RULE_80, ""))
        plan = stack.json("plan", str(file), "--flows", code=2)
        assert {change["entity"] for change in plan["changes"]} == {"web-acl/acls/web"}
        assert {change["action"] for change in plan["changes"]} == {"remove"}
        changed = time.monotonic()
        stack.apply(file)
        assert say(ending, "two") == "silence"
        assert say(going_on, "two") == "two"
        assert ask("client", WEB[0], 80) == "silence"
        age = time.monotonic() - changed
        ages = [
            float(said) for said in re.findall(r"duration=([\d.]+)s", stack.ofctl("dump-flows", "br-web"))
        ]
        assert min(ages) > age, "no flow was made anew"


def test_a_neighbour_of_the_same_addresses_notices_nothing(web: tuple[Stack, Path], tmp_path: Path) -> None:
    stack, _ = web
    file = tmp_path / "blue.yaml"
    file.write_text(neighbour())
    stack.apply(file)
    zones = {
        line
        for bridge in ("br-web", "br-blue")
        for line in re.findall(r"load:(0x\w+)->NXM_NX_REG3\[0\.\.15\]", stack.ofctl("dump-flows", bridge))
    }
    assert len(zones) == 3, "each interface with ACLs has a zone of its own, whichever topology it is of"
    with server("web", 80, 8200), server("blue-web", 80, 8200):
        assert ask("client", WEB[0], 8200) == "silence"
        assert ask("blue-client", WEB[0], 8200, patience=8) == "question"
        assert ask("blue-other", WEB[0], 80) == "question"
        assert ask("other", WEB[0], 80) == "silence"


def connections(stack: Stack, zone: int) -> list[str]:
    dump = run("ovs-appctl", "--target", str(control(stack)), "dpctl/dump-conntrack", f"zone={zone}")
    return [line for line in dump.splitlines() if f"zone={zone}" in line]


def control(stack: Stack) -> Path:
    (path,) = stack.rundir.glob("ovs-vswitchd.*.ctl")
    return path


def zones_of(stack: Stack, bridge: str) -> dict[str, int]:
    """Port number -> zone of the interfaces with ACLs."""
    found = re.findall(
        r"table=40, .*in_port=(\w+) .*load:(0x\w+)->NXM_NX_REG3\[0\.\.15\]", stack.ofctl("dump-flows", bridge)
    )
    return {port: int(zone, 16) for port, zone in found}


def with_acls(**acls: str | None) -> str:
    """The example, with other ACLs at some of its interfaces."""
    data = yaml.safe_load(example())
    for node, names in acls.items():
        interface = data["nodes"][node]["interfaces"]["eth0"]
        interface.pop("acls", None)
        if names is not None:
            interface["acls"] = names
    return yaml.safe_dump(data, sort_keys=False)


def test_a_zone_that_gets_another_interface_holds_no_connection_of_the_old_one(
    web: tuple[Stack, Path],
) -> None:
    stack, file = web
    file.write_text(with_acls(web="web", client=None, other=None))
    stack.apply(file)
    ((old_port, zone),) = zones_of(stack, "br-web").items()
    with server("web", 80), process("client", TALK, WEB[0], "80") as talking:
        assert say(talking, "one") == "one"
        file.write_text(with_acls(web=None, client=None, other=None))
        stack.apply(file)
        assert zones_of(stack, "br-web") == {}
        assert say(talking, "two") == "two"
        assert connections(stack, zone), "they would be there for the next one"
        file.write_text(with_acls(web=None, client=None, other="web"))
        stack.apply(file)
        ((port, again),) = zones_of(stack, "br-web").items()
        assert port != old_port and again == zone
        assert connections(stack, zone) == []
        assert say(talking, "three") == "three"


def test_a_daemon_that_starts_anew_empties_no_zone(web: tuple[Stack, Path]) -> None:
    stack, file = web
    with server("web", 80), process("client", TALK, WEB[0], "80") as talking:
        assert say(talking, "one") == "one"
        before = {zone: connections(stack, zone) for zone in zones_of(stack, "br-web").values()}
        assert any(before.values())
        stack.kill_daemon()
        stack.cli("up")
        stack.apply(file)
        for zone, lines in before.items():
            assert len(connections(stack, zone)) >= len(lines)
        assert say(talking, "two") == "two"
