"""Settings, each also an environment variable: VSWITCHCTL_RUN_DIR, VSWITCHCTL_API_SOCKET, ..."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from vswitchctl.errors import UserError
from vswitchctl.model.topology import IFNAME_MAX

PREFIX: Final = "VSWITCHCTL_"

SOCKET_PATH_MAX: Final = 107
"""Bytes of a Unix socket's path without the final NUL: unix(7), sun_path."""

UNIX: Final = "unix:"


def answers(path: Path) -> bool:
    """Whether somebody listens on the Unix socket. One that we may not open counts: it is somebody's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (PermissionError, TimeoutError, BlockingIOError):
            return True
        except OSError:
            return False
    return True


def _api_socket(data: dict[str, Any]) -> Path:
    return Path(data["run_dir"]) / "api.sock"


def _intent_remote(data: dict[str, Any]) -> str:
    return f"{UNIX}{data['run_dir']}/intent.sock"


def _ovs_remote(data: dict[str, Any]) -> str:
    """The private one while it runs, so that a system service started later does not take over."""
    private = Path(data["run_dir"]) / "ovs" / "db.sock"
    system = Path(data["system_ovs_rundir"]) / "db.sock"
    return f"{UNIX}{system if not answers(private) and answers(system) else private}"


def _ovs_rundir(data: dict[str, Any]) -> Path:
    remote = str(data["ovs_remote"])
    return (
        Path(remote.removeprefix(UNIX)).parent if remote.startswith(UNIX) else Path(data["system_ovs_rundir"])
    )


class Settings(BaseSettings):
    """Where things are. Defaults suit a machine with one daemon.

    A default that rests on another setting follows it: with another run_dir the sockets move too.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    run_dir: Path = Field(Path("/run/vswitchctl"), description="sockets and process ids; gone after a reboot")
    state_dir: Path = Field(Path("/var/lib/vswitchctl"), description="databases and logs")
    api_socket: Path = Field(default_factory=_api_socket, description="Unix socket of the REST API")
    intent_remote: str = Field(
        default_factory=_intent_remote, description="the intent database: unix:PATH or tcp:ADDRESS:PORT,..."
    )
    system_ovs_rundir: Path = Field(
        Path("/var/run/openvswitch"), description="run directory of the Open vSwitch that the system runs"
    )
    ovs_remote: str = Field(
        default_factory=_ovs_remote,
        description="Open vSwitch's database: the system's where it runs, else a private one in run_dir",
    )
    ovs_rundir: Path = Field(
        default_factory=_ovs_rundir, description="where ovs-vswitchd has its <bridge>.mgmt sockets"
    )
    libvirt_uris: str = Field(
        "qemu:///system", description="the libvirts of this host, separated by spaces; 'none' for no one"
    )
    host: str = Field(default_factory=socket.gethostname, min_length=1, description="this host's name")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="what the log takes")

    @property
    def libvirts(self) -> tuple[str, ...]:
        """The URIs in `libvirt_uris`."""
        return tuple(uri for uri in self.libvirt_uris.split() if uri != "none")

    @property
    def private_intent_remote(self) -> str:
        """The intent database that `vswitchctl up` starts, unless intent_remote names another."""
        return f"{UNIX}{self.run_dir / 'intent.sock'}"

    @property
    def private_ovs_rundir(self) -> Path:
        """Run directory of the Open vSwitch that `vswitchctl up` starts where the system runs none."""
        return self.run_dir / "ovs"

    @property
    def private_ovs_remote(self) -> str:
        return f"{UNIX}{self.private_ovs_rundir / 'db.sock'}"

    def environment(self) -> dict[str, str]:
        """The environment that gives a child process these settings, whatever its own defaults were."""
        return {f"{PREFIX}{name.upper()}": str(getattr(self, name)) for name in type(self).model_fields}

    def make_directories(self) -> None:
        """Create run_dir and state_dir, mode 0700. Raises UserError, saying which cannot be used and why."""
        longest = self.private_ovs_rundir / f"{'x' * IFNAME_MAX}.mgmt"
        if len(os.fsencode(longest)) > SOCKET_PATH_MAX:
            raise UserError(
                f"run_dir {self.run_dir} is too long: sockets inside would pass {SOCKET_PATH_MAX} bytes",
                f"set {PREFIX}RUN_DIR to a shorter path",
            )
        for path in (self.run_dir, self.state_dir):
            make_private(path)


def make_private(path: Path) -> None:
    """Create a directory, mode 0700; an existing one stays as it is. Raises UserError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the directory {path}: {error.strerror}",
            f"run as root, or set {PREFIX}RUN_DIR and {PREFIX}STATE_DIR to directories you may write",
        ) from error
