"""What a person did wrong is one line on standard error that says what to do, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import COMMAND, CommandLine, Result, plain, read_all, terminal
from fastapi import FastAPI
from served_api import DEADLINE, Served, running, served_api, short_directory

from vswitchctl.api.server import ApiServer
from vswitchctl.errors import Conflict, RetryableError

AS_NOBODY = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
"""setpriv(1): nobody, who may still read a checkout in the home of root, but neither write nor connect."""


@pytest.fixture
def api() -> Iterator[Served]:
    with served_api() as served:
        yield served


@pytest.fixture
def cli(api: Served, tmp_path: Path) -> CommandLine:
    return CommandLine(api.socket, tmp_path)


def one_line(result: Result) -> str:
    assert result.code == 1, result
    assert result.out == ""
    assert result.err.endswith("\n") and result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    return result.err.removesuffix("\n")


@pytest.fixture
def no_daemon(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "api.sock", tmp_path)


@pytest.mark.parametrize(
    "command",
    [("show",), ("plan", "pair.yaml"), ("apply", "pair.yaml"), ("destroy", "pair"), ("flows", "br-a")],
)
def test_no_daemon(no_daemon: CommandLine, command: tuple[str, ...]) -> None:
    no_daemon.write_topology()
    assert one_line(no_daemon.run(*command)) == (
        f"error: the daemon does not answer at {no_daemon.socket}; start it: sudo vswitchctl up"
    )


def test_a_daemon_that_is_gone_leaves_a_socket_that_nobody_answers(no_daemon: CommandLine) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.path.relpath(no_daemon.socket))
    assert "start it: sudo vswitchctl up" in one_line(no_daemon.run("show"))


def test_the_socket_option_comes_before_the_environment(cli: CommandLine, tmp_path: Path) -> None:
    line = one_line(cli.run("--socket", str(tmp_path / "other.sock"), "show"))
    assert "other.sock" in line


def test_a_path_that_is_no_socket(cli: CommandLine) -> None:
    assert one_line(cli.run("--socket", "/etc/passwd", "show")) == (
        "error: /etc/passwd is not a socket; --socket names the daemon's"
    )
    assert "path too long" in one_line(cli.run("--socket", "/tmp/" + "x" * 200, "show"))


def test_a_socket_that_another_user_may_not_open(api: Served, tmp_path: Path) -> None:
    """As another user: root may open every socket."""
    api.socket.parent.chmod(0o711)
    done = subprocess.run(
        [*AS_NOBODY, *COMMAND, "--socket", str(api.socket), "show"],
        capture_output=True,
        text=True,
        cwd="/",
        env=CommandLine(api.socket, tmp_path).environment(),
        timeout=DEADLINE,
        check=False,
    )
    line = one_line(Result(done.returncode, done.stdout, done.stderr))
    assert line == f"error: permission denied at {api.socket}; run it as root: sudo vswitchctl ..."


@pytest.mark.parametrize("verb", ["run", "up", "down"])
def test_the_daemons_own_commands_need_root(tmp_path: Path, verb: str) -> None:
    done = subprocess.run(
        [*AS_NOBODY, *COMMAND, verb],
        capture_output=True,
        text=True,
        cwd="/",
        env=CommandLine(tmp_path / "api.sock", tmp_path).environment(),
        timeout=DEADLINE,
        check=False,
    )
    line = one_line(Result(done.returncode, done.stdout, done.stderr))
    assert line.endswith(f"it needs root; sudo vswitchctl {verb}")


@pytest.mark.parametrize("verb", ["validate", "plan", "apply"])
def test_a_missing_file_a_directory_and_a_wrong_format(cli: CommandLine, verb: str) -> None:
    assert "No such file" in one_line(cli.run(verb, "nope.yaml"))
    (cli.directory / "some").mkdir()
    assert one_line(cli.run(verb, "some")) == "error: some is a directory; name a topology file in it"
    cli.write("pair.toml", "name = 'pair'\n")
    assert "unknown format '.toml'" in one_line(cli.run(verb, "pair.toml"))


@pytest.mark.parametrize("command", [("show", "topology"), ("destroy",)])
def test_an_unknown_topology_names_the_nearest(cli: CommandLine, command: tuple[str, ...]) -> None:
    assert one_line(cli.run(*command, "pear")) == "error: no topology 'pear'; there is none yet"
    assert cli.run("apply", "--yes", cli.write_topology("pair")).code == 0
    assert one_line(cli.run(*command, "pear")) == "error: no topology 'pear'; did you mean 'pair'?"
    assert one_line(cli.run(*command, "zzz")) == "error: no topology 'zzz'; there is pair"


def test_an_unknown_bridge_names_the_nearest(cli: CommandLine) -> None:
    cli.run("apply", "--yes", cli.write_topology("pair"))
    assert one_line(cli.run("flows", "br-aa")) == "error: no bridge 'br-aa'; did you mean 'br-a'?"


@pytest.mark.parametrize(
    "command, says",
    [
        (("nonsense",), "No such command 'nonsense'; see vswitchctl --help"),
        (("plan",), "Missing argument 'FILE'; see vswitchctl plan --help"),
        (("plan", "x.yaml", "--colour"), "No such option: --colour"),
        (("show", "cables"), "'cables' is not one of 'topologies'"),
        (("show", "topology"), "vswitchctl show topology NAME"),
        (("show", "hosts", "hv1"), "only 'show topology' takes a name"),
        (("apply", "x.yaml", "--timeout", "soon"), "--timeout"),
        (("flows", "br-a", "--source", "guessed"), "'guessed' is not one of 'observed', 'desired'"),
    ],
)
def test_a_wrong_command_line(cli: CommandLine, command: tuple[str, ...], says: str) -> None:
    assert says in one_line(cli.run(*command))


def test_a_wrong_setting_in_the_environment(cli: CommandLine) -> None:
    wrong = CommandLine(cli.socket, cli.directory, {"VSWITCHCTL_LOG_LEVEL": "LOUD"})
    assert one_line(wrong.run("show")).startswith("error: setting VSWITCHCTL_LOG_LEVEL: ")


def test_every_error_of_a_document_is_a_line_with_its_place(cli: CommandLine) -> None:
    text = (cli.directory / cli.write_topology()).read_text()
    file = cli.write(
        "wrong.yaml", text.replace("network: lan", "network: wan").replace("web2:eth0", "web9:eth0")
    )
    for verb in ("validate", "plan", "apply"):
        result = cli.run(verb, file)
        lines = result.err.splitlines()
        assert (result.code, result.out) == (1, "")
        assert sum(": error: " in line for line in lines) == 3
        assert all(line.startswith("wrong.yaml:") for line in lines), lines


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("pair.yaml", "-o", "t.pdf"), "no format has the suffix '.pdf'; one of .svg, .png"),
        (("pair.yaml", "-o", "none/t.svg"), "error: none/t.svg: No such file or directory"),
        (("pair.yaml", "-o", "t.svg", "--format", "terminal"), "is not for a file"),
        (("nope.yaml",), "nope.yaml: error: cannot be read: No such file"),
        (("nope",), "no topology 'nope'; there is none yet"),
    ],
)
def test_a_graph_that_cannot_be_drawn(cli: CommandLine, arguments: tuple[str, ...], says: str) -> None:
    cli.write_topology()
    assert says in one_line(cli.run("graph", *arguments))


def test_a_png_is_kept_from_a_terminal(cli: CommandLine) -> None:
    result = cli.on_terminal("graph", cli.write_topology(), "--format", "png")
    assert (result.code, plain(result.out)) == (
        1,
        "error: a PNG is nothing for a terminal; add -o topology.png\n",
    )


def test_nobody_to_ask(cli: CommandLine, api: Served) -> None:
    result = cli.run("apply", cli.write_topology())
    assert (result.code, result.err) == (1, "error: nobody is here to confirm this plan; add --yes\n")
    assert api.service.topologies() == ()


def test_errors_of_the_daemon_are_one_line_too(
    cli: CommandLine, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RetryableError(
            "Open vSwitch does not answer", "start it: sudo systemctl start openvswitch-switch"
        )

    monkeypatch.setattr(api.service, "hosts", refuse)
    assert one_line(cli.run("show", "hosts")) == (
        "error: Open vSwitch does not answer; start it: sudo systemctl start openvswitch-switch"
    )


def test_a_conflict_found_at_apply(cli: CommandLine, api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Conflict("device br-a belongs to 'other'", "rename one of them")

    monkeypatch.setattr(api.service, "apply", refuse)
    result = cli.run("apply", "--yes", cli.write_topology())
    assert (result.code, result.err) == (1, "error: device br-a belongs to 'other'; rename one of them\n")


def test_with_json_an_error_is_one_document_too(no_daemon: CommandLine) -> None:
    result = no_daemon.run("show", "--json")
    assert result.code == 1
    assert json.loads(result.out)["remedy"] == "start it: sudo vswitchctl up"
    assert result.err.count("\n") == 1


def test_an_answer_of_another_version(no_daemon: CommandLine) -> None:
    """A daemon whose hosts lack what this version reads."""
    other = FastAPI()
    other.get("/api/v1/hosts")(lambda: [{"hostname": "hv1"}])
    with short_directory() as directory, running(ApiServer(other, directory / "api.sock")):
        line = one_line(no_daemon.run("--socket", str(directory / "api.sock"), "show", "hosts"))
    assert "answers in another form than this version reads" in line
    assert line.endswith("restart the daemon after an upgrade")


def test_a_reader_that_leaves_early(cli: CommandLine, api: Served) -> None:
    cli.run("apply", "--yes", cli.write_topology(bridges=tuple(f"br-{number}" for number in range(200))))
    with subprocess.Popen(
        [*COMMAND, "show", "links"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli.environment(),
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(DEADLINE) == 1


def test_interrupting_a_wait_leaves_the_apply_to_the_daemon(cli: CommandLine, api: Served) -> None:
    api.service.gate.clear()
    arguments = [*COMMAND, "apply", "--yes", cli.write_topology()]
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli.environment(),
        cwd=cli.directory,
        text=True,
    ) as process:
        api.service.watched.wait(DEADLINE)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert err == (
        "error: interrupted; the apply of 'pair' goes on in the daemon: vswitchctl show topology pair\n"
    )
    api.service.gate.set()
    done = api.service.wait_operation("op-1", api.service.operation("op-1"), DEADLINE)
    assert done.topology == "pair"


def await_sleep(pid: int) -> None:
    """Return once the process blocks. A signal just before its read(2) would be noticed only after it."""
    deadline = time.monotonic() + DEADLINE
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < deadline
        os.sched_yield()


def test_interrupting_the_question_changes_nothing(cli: CommandLine, api: Served) -> None:
    with terminal(cli, ["apply", cli.write_topology()], 80) as (process, master):
        text = b""
        while not text.endswith(b"Apply 'pair'? [y/N]: "):
            text += os.read(master, 4096)
        await_sleep(process.pid)
        process.send_signal(signal.SIGINT)
        rest = read_all(master)
        assert process.wait(DEADLINE) == 130
    assert "Traceback" not in plain(rest)
    assert api.service.topologies() == ()


def test_an_apply_that_takes_too_long(cli: CommandLine, api: Served) -> None:
    api.service.gate.clear()
    result = cli.run("apply", "--yes", "--timeout", "0.1", cli.write_topology())
    assert result.code == 1
    assert result.err == (
        "error: the apply of 'pair' is not done after 0.1 s; it goes on in the daemon;"
        " vswitchctl show topology pair\n"
    )


def test_a_daemon_that_ends_during_a_wait(tmp_path: Path) -> None:
    with served_api() as api:
        cli = CommandLine(api.socket, tmp_path)
        api.service.gate.clear()
        arguments = [*COMMAND, "apply", "--yes", cli.write_topology()]
        process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=cli.environment(),
            cwd=tmp_path,
            text=True,
        )
        api.service.watched.wait(DEADLINE)
    with process:
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert err.count("\n") == 1 and "went away before it answered" in err, err
