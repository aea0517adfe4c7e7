"""Settings: defaults that follow each other, the environment, and directories that keep others out."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from vswitchctl.errors import UserError
from vswitchctl.settings import PREFIX, Settings, answers


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)


def test_defaults() -> None:
    settings = Settings(system_ovs_rundir=Path("/nonexistent"))

    assert settings.run_dir == Path("/run/vswitchctl")
    assert settings.state_dir == Path("/var/lib/vswitchctl")
    assert settings.api_socket == Path("/run/vswitchctl/api.sock")
    assert settings.intent_remote == "unix:/run/vswitchctl/intent.sock"
    assert settings.ovs_remote == "unix:/run/vswitchctl/ovs/db.sock"
    assert settings.ovs_rundir == Path("/run/vswitchctl/ovs")
    assert settings.host == socket.gethostname()
    assert settings.log_level == "INFO"


def test_defaults_follow_the_run_directory_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VSWITCHCTL_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("VSWITCHCTL_SYSTEM_OVS_RUNDIR", "/nonexistent")
    monkeypatch.setenv("VSWITCHCTL_HOST", "hv1")
    monkeypatch.setenv("VSWITCHCTL_STATE_DIR", "")

    settings = Settings()

    assert settings.api_socket == tmp_path / "api.sock"
    assert settings.intent_remote == settings.private_intent_remote == f"unix:{tmp_path}/intent.sock"
    assert settings.ovs_remote == settings.private_ovs_remote == f"unix:{tmp_path}/ovs/db.sock"
    assert settings.host == "hv1"
    assert settings.state_dir == Path("/var/lib/vswitchctl"), "an empty variable is no setting"


@pytest.mark.parametrize(
    ("remote", "rundir"),
    [("unix:/srv/ovs/db.sock", "/srv/ovs"), ("tcp:192.0.2.1:6640", "/var/run/openvswitch")],
)
def test_bridge_sockets_are_beside_the_database(remote: str, rundir: str) -> None:
    assert Settings(ovs_remote=remote).ovs_rundir == Path(rundir)


def test_a_child_process_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(run_dir=tmp_path, host="hv1", log_level="DEBUG", api_socket=tmp_path / "other.sock")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)

    assert Settings() == settings


def test_a_wrong_log_level_is_refused() -> None:
    with pytest.raises(ValidationError, match="log_level"):
        Settings.model_validate({"log_level": "LOUD"})


def test_directories_are_private(tmp_path: Path) -> None:
    settings = Settings(run_dir=Path("/tmp") / tmp_path.name, state_dir=tmp_path / "a" / "state")
    try:
        settings.make_directories()
        settings.make_directories()
        for path in (settings.run_dir, settings.state_dir):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
    finally:
        settings.run_dir.rmdir()


def test_a_run_directory_too_long_for_sockets_is_refused() -> None:
    settings = Settings(run_dir=Path("/tmp") / ("x" * 90))

    with pytest.raises(UserError, match="too long") as caught:
        settings.make_directories()
    assert "VSWITCHCTL_RUN_DIR" in caught.value.remedy
    assert not settings.run_dir.exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings(run_dir=Path("/tmp"), state_dir=tmp_path / "file" / "state")

    with pytest.raises(UserError) as caught:
        settings.make_directories()
    assert str(settings.state_dir) in caught.value.message


def test_only_a_socket_with_a_listener_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
    path = Path("s.sock")
    assert not answers(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not answers(path)
        server.listen()
        assert answers(path)
    assert path.exists()
    assert not answers(path)
