"""The private databases and switch of `vswitchctl up`: started, repaired, upgraded, ended. Real daemons."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from instances import HostNamespace, Ovs, database, run, wait_exit

from vswitchctl.drivers import database_file
from vswitchctl.drivers.embedded import Embedded, end_process, read_pid, system_ovs_running
from vswitchctl.errors import UserError
from vswitchctl.settings import Settings

DAEMONS = ("intent", "ovsdb-server", "ovs-vswitchd")


@pytest.fixture
def settings(short_tmp: Path) -> Settings:
    return at(short_tmp)


def at(directory: Path, system: Path | None = None) -> Settings:
    """Settings that know nothing of the machine's own Open vSwitch."""
    return Settings(
        run_dir=directory / "r", state_dir=directory / "s", system_ovs_rundir=system or directory / "none"
    )


@pytest.fixture
def embedded(settings: Settings, host_ns: HostNamespace) -> Iterator[Embedded]:
    """Not started yet; what a test starts runs in `host_ns` and is ended afterwards."""
    embedded = Embedded(settings)
    with host_ns.enter():
        try:
            yield embedded
        finally:
            embedded.down()


def up(embedded: Embedded) -> dict[str, int]:
    embedded.up_intent()
    embedded.up_ovs()
    pids = {name: pid for name, pid in embedded.status().items() if pid is not None}
    assert set(pids) == set(DAEMONS)
    return pids


def vsctl(settings: Settings, *arguments: str) -> str:
    return run("ovs-vsctl", "--timeout=30", f"--db={settings.ovs_remote}", *arguments).strip()


def devices(host: HostNamespace) -> set[str]:
    return {link["ifname"] for link in json.loads(host.run("ip", "-j", "link"))}


def reap(pid: int) -> None:
    assert wait_exit(pid, 10)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_up_works_and_keeps_others_out(
    settings: Settings, embedded: Embedded, host_ns: HostNamespace
) -> None:
    pids = up(embedded)

    assert set(pids.values()) <= set(host_ns.processes())
    assert run("ovsdb-client", "list-dbs", settings.intent_remote).split() == ["_Server", "vswitchctl"]
    vsctl(settings, "add-br", "br-a", "--", "set", "Bridge", "br-a", "datapath_type=netdev")
    assert "br-a" in devices(host_ns)
    assert (settings.ovs_rundir / "br-a.mgmt").is_socket()
    assert vsctl(settings, "get", "Open_vSwitch", ".", "ovs_version").strip('"') in run(
        "ovs-vswitchd", "--version"
    )
    for directory in (settings.run_dir, settings.state_dir, settings.ovs_rundir, settings.state_dir / "ovs"):
        assert mode(directory) == 0o700
        for path in directory.iterdir():
            assert path.is_dir() or mode(path) & 0o077 == 0, path
    for path in (settings.run_dir / "intent.sock", settings.ovs_rundir / "db.sock"):
        assert mode(path) == 0o600


def test_up_again_starts_nothing(embedded: Embedded) -> None:
    assert up(embedded) == up(embedded)


def test_two_at_once_start_one_of_each(settings: Settings, embedded: Embedded) -> None:
    program = "from vswitchctl.drivers.embedded import Embedded; from vswitchctl.settings import Settings; "
    program += "e = Embedded(Settings()); e.up_intent(); e.up_ovs(); print(sorted(e.status().items()))"
    environment = {**os.environ, **settings.environment(), "PYTHONWARNINGS": "ignore"}
    both = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] == f"{sorted(embedded.status().items())}\n"


def test_down_ends_everything_and_keeps_the_data(
    settings: Settings, embedded: Embedded, host_ns: HostNamespace
) -> None:
    pids = up(embedded)
    vsctl(settings, "add-br", "br-a", "--", "set", "Bridge", "br-a", "datapath_type=netdev")

    embedded.down()

    for pid in pids.values():
        reap(pid)
    assert embedded.status() == dict.fromkeys(DAEMONS)
    assert devices(host_ns) == {"lo"}, "the datapath's devices are gone too"
    assert [path.name for path in settings.run_dir.iterdir()] == ["up.lock"]
    assert (settings.state_dir / "intent.db").exists()
    embedded.down()
    up(embedded)
    assert vsctl(settings, "list-br") == "br-a"
    assert "br-a" in devices(host_ns)


def test_purge_removes_what_is_ours_alone(settings: Settings, embedded: Embedded) -> None:
    up(embedded)
    theirs = settings.state_dir / "theirs"
    theirs.write_text("kept")

    embedded.down(purge=True)

    assert [path.name for path in settings.state_dir.iterdir()] == ["theirs"]
    theirs.unlink()
    embedded.down(purge=True)
    assert not settings.state_dir.exists()


@pytest.mark.parametrize("victims", [DAEMONS[:1], DAEMONS[1:2], DAEMONS[2:], DAEMONS])
def test_up_repairs_what_was_killed(
    settings: Settings, embedded: Embedded, host_ns: HostNamespace, victims: tuple[str, ...]
) -> None:
    before = up(embedded)
    vsctl(settings, "add-br", "br-a", "--", "set", "Bridge", "br-a", "datapath_type=netdev")
    for name in victims:
        os.kill(before[name], signal.SIGKILL)
        reap(before[name])
    assert {name for name, pid in embedded.status().items() if pid is None} == set(victims)

    after = up(embedded)

    assert {name for name in DAEMONS if after[name] != before[name]} == set(victims)
    assert run("ovsdb-client", "list-dbs", settings.intent_remote).split() == ["_Server", "vswitchctl"]
    assert vsctl(settings, "list-br") == "br-a"
    vsctl(settings, "add-br", "br-b", "--", "set", "Bridge", "br-b", "datapath_type=netdev")
    assert {"br-a", "br-b"} <= devices(host_ns)


def test_down_cleans_up_after_a_crash(settings: Settings, embedded: Embedded, host_ns: HostNamespace) -> None:
    pids = up(embedded)
    vsctl(settings, "add-br", "br-a", "--", "set", "Bridge", "br-a", "datapath_type=netdev")
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
        reap(pid)
    assert (settings.ovs_rundir / "br-a.mgmt").exists()

    embedded.down()

    assert [path.name for path in settings.run_dir.iterdir()] == ["up.lock"]
    assert devices(host_ns) == {"lo"}


@contextlib.contextmanager
def innocent() -> Iterator[int]:
    """A process that has nothing to do with us."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_reused_process_id_is_neither_trusted_nor_killed(settings: Settings, embedded: Embedded) -> None:
    up(embedded)
    embedded.down()
    with innocent() as pid:
        settings.private_ovs_rundir.mkdir(mode=0o700)
        pidfiles = [settings.run_dir / "intent.pid"]
        pidfiles += [settings.private_ovs_rundir / f"{name}.pid" for name in DAEMONS[1:]]
        for pidfile in pidfiles:
            pidfile.write_text(f"{pid}\n")
        assert embedded.status() == dict.fromkeys(DAEMONS)

        embedded.down()
        assert Path(f"/proc/{pid}/exe").resolve().name == "sleep"
        settings.private_ovs_rundir.mkdir(mode=0o700)
        for pidfile in pidfiles:
            pidfile.write_text(f"{pid}\n")
        assert pid not in up(embedded).values()
        assert Path(f"/proc/{pid}/exe").resolve().name == "sleep"


def test_the_same_program_of_somebody_else_is_not_ours(settings: Settings, embedded: Embedded) -> None:
    with database(Path("/usr/share/openvswitch/vswitch.ovsschema")) as socket:
        theirs = int((socket.parent / "ovsdb-server.pid").read_text())
        settings.make_directories()
        (settings.run_dir / "intent.pid").write_text(f"{theirs}\n")
        assert embedded.status()["intent"] is None

        embedded.down()

        assert run("ovsdb-client", "list-dbs", f"unix:{socket}").split() == ["Open_vSwitch", "_Server"]


def test_read_pid_knows_a_python_program_by_its_module(short_tmp: Path) -> None:
    package = short_tmp / "demo"
    package.mkdir()
    (package / "serve.py").write_text("print('up', flush=True)\ninput()\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.serve"],
        cwd=short_tmp,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin:
        assert process.stdout.readline() == b"up\n"
        pidfile = short_tmp / "demo.pid"
        pidfile.write_text(f"{process.pid}\n")
        assert read_pid(pidfile, "demo") == process.pid
        assert read_pid(pidfile, "other") is None
        assert read_pid(short_tmp / "absent.pid", "demo") is None
        assert end_process(process.pid)
        assert process.wait() == -signal.SIGTERM
    assert read_pid(pidfile, "demo") is None


def test_end_process_insists(short_tmp: Path) -> None:
    deaf = "import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); print('up', flush=True); s.pause()"
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"up\n"
        assert end_process(process.pid, seconds=0.1)
        assert process.wait() == -signal.SIGKILL


def test_a_missing_program_says_what_to_install(embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(database_file, "_SBIN", "")

    with pytest.raises(UserError) as caught:
        embedded.up_intent()
    assert "is not installed" in caught.value.message
    assert "apt-get install openvswitch-switch" in caught.value.remedy


def test_a_damaged_database_is_an_error_with_a_way_out(settings: Settings, embedded: Embedded) -> None:
    settings.make_directories()
    file = settings.state_dir / "intent.db"
    file.write_text("no database\n")

    with pytest.raises(UserError) as caught:
        embedded.up_intent()
    assert str(file) in str(caught.value)
    assert "move the file away" in caught.value.remedy
    assert file.read_text() == "no database\n"


def test_a_deleted_socket_is_made_again(settings: Settings, embedded: Embedded) -> None:
    before = up(embedded)
    for path in (settings.run_dir / "intent.sock", settings.ovs_rundir / "db.sock"):
        path.unlink()

    after = up(embedded)

    assert run("ovsdb-client", "list-dbs", settings.intent_remote).split() == ["_Server", "vswitchctl"]
    assert vsctl(settings, "list-br") == ""
    assert after["ovs-vswitchd"] == before["ovs-vswitchd"]


def test_a_daemon_that_does_not_start_says_why(settings: Settings, embedded: Embedded) -> None:
    settings.make_directories()
    (settings.run_dir / "intent.sock").mkdir()

    with pytest.raises(UserError) as caught:
        embedded.up_intent()
    (settings.run_dir / "intent.sock").rmdir()
    assert "Is a directory" in caught.value.message
    assert str(settings.state_dir / "intent.log") in caught.value.remedy
    assert embedded.status()["intent"] is None


def test_a_foreign_open_vswitch_that_is_down_is_not_replaced(short_tmp: Path) -> None:
    settings = Settings(
        run_dir=short_tmp / "r", state_dir=short_tmp / "s", ovs_remote=f"unix:{short_tmp}/theirs/db.sock"
    )
    assert not system_ovs_running(settings)
    with pytest.raises(UserError, match="does not answer"):
        Embedded(settings).up_ovs()


def test_the_system_s_open_vswitch_is_used_where_it_runs(ovs: Ovs, short_tmp: Path) -> None:
    (short_tmp / "ovs").mkdir()
    settings = at(short_tmp, system=ovs.rundir)
    assert settings.ovs_remote == ovs.db
    assert settings.ovs_rundir == ovs.rundir
    assert system_ovs_running(settings)

    ovs.kill("ovsdb-server")
    assert ovs.socket.exists(), "what a crash leaves is no running server"
    assert not system_ovs_running(settings)
    assert at(short_tmp, system=ovs.rundir).ovs_remote == settings.private_ovs_remote
    ovs.start_database()


def test_a_private_open_vswitch_stays_in_use_when_the_system_s_starts(
    ovs: Ovs, settings: Settings, embedded: Embedded, short_tmp: Path
) -> None:
    up(embedded)

    later = at(short_tmp, system=ovs.rundir)

    assert later.ovs_remote == settings.private_ovs_remote
    assert not system_ovs_running(later)


SCHEMA = Path(str(files("vswitchctl.intent") / "vswitchctl.ovsschema"))


def older_schema(directory: Path, version: str) -> Path:
    """The intent schema without one of its tables' columns, under another version."""
    schema = json.loads(SCHEMA.read_text())
    schema["version"] = version
    del schema["tables"]["Topology"]["columns"]["description"]
    file = directory / f"{version}.ovsschema"
    file.write_text(json.dumps(schema))
    return file


def shift(major: int, minor: int) -> str:
    """A version relative to the schema's."""
    have = [int(part) for part in json.loads(SCHEMA.read_text())["version"].split(".")]
    return f"{have[0] + major}.{have[1] + minor}.{have[2]}"


def test_an_older_database_is_upgraded_with_its_rows(
    settings: Settings, embedded: Embedded, short_tmp: Path
) -> None:
    settings.make_directories()
    file = settings.state_dir / "intent.db"
    older = shift(-1, 0)
    database_file.prepare_database(file, older_schema(short_tmp, older), [insert("kept")])

    embedded.up_intent()

    dump = run("ovsdb-client", "--format=csv", "dump", settings.intent_remote, "vswitchctl", "Topology")
    assert "kept" in dump
    assert "description" in dump
    assert run("ovsdb-client", "get-schema-version", settings.intent_remote, "vswitchctl").strip() == shift(
        0, 0
    )
    kept = settings.state_dir / f"intent.db.before-{older}"
    assert run("ovsdb-tool", "db-version", str(kept)).strip() == older


def insert(name: str) -> dict[str, object]:
    return {"op": "insert", "table": "Topology", "row": {"name": name, "generation": 1, "revision": 1}}


def test_a_newer_minor_version_is_left_alone(settings: Settings, embedded: Embedded, short_tmp: Path) -> None:
    settings.make_directories()
    database_file.prepare_database(settings.state_dir / "intent.db", older_schema(short_tmp, shift(0, 1)))

    embedded.up_intent()

    assert run("ovsdb-client", "get-schema-version", settings.intent_remote, "vswitchctl").strip() == shift(
        0, 1
    )


def test_a_newer_major_version_is_refused(settings: Settings, embedded: Embedded, short_tmp: Path) -> None:
    settings.make_directories()
    file = settings.state_dir / "intent.db"
    database_file.prepare_database(file, older_schema(short_tmp, shift(1, 0)))
    before = file.read_bytes()

    with pytest.raises(UserError, match="newer version"):
        embedded.up_intent()

    assert file.read_bytes() == before
    assert embedded.status()["intent"] is None


def test_an_intent_database_elsewhere_is_not_started_here(short_tmp: Path) -> None:
    settings = Settings(
        run_dir=short_tmp / "r", state_dir=short_tmp / "s", intent_remote="tcp:192.0.2.1:6645"
    )
    Embedded(settings).up_intent()
    assert not settings.run_dir.exists()
