"""A private host for virtual machines: network, mounts and name of its own, a libvirtd and a vswitchctl.

`virsh` and the guests' serial consoles are independent witnesses of what the product did.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tests.dataplane.instances import end_process, unique, wait_exit
from tests.system.conftest import ROOT, Stack, until
from tests.vm.console import Console

COMMAND_SECONDS = 120

# libvirtd finds its directories at fixed places, so these are private; /sys shows the namespace's devices.
SETUP = """
set -eu
mount --make-rprivate /
mkdir -p "$1/guest"
mount --bind "$2" "$1/guest"
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var
ln -s /run /var/run
mkdir -p /run/openvswitch /run/netns /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /var/tmp
mount --bind "$1/etc" /etc/libvirt
for file in passwd group hosts; do mount --bind "$1/$file" "/etc/$file"; done
hostname "$3"
ip link set lo up
echo ready
exec sleep infinity
"""

LIBVIRTD_CONF = """
unix_sock_dir = "{directory}"
auth_unix_rw = "none"
auth_unix_ro = "none"
host_uuid = "{uuid}"
log_outputs = "2:file:{directory}/libvirtd.log"
"""
QEMU_CONF = """
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
"""


@cache
def guest_files() -> Path:
    """The directory of the test guest's kernel and initramfs, made where it is not there yet."""
    script = ROOT / "scripts" / "guest"
    done = subprocess.run([str(script)], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, f"scripts/guest\n{done.stdout}{done.stderr}"
    return Path(json.loads(done.stdout.splitlines()[-1])["kernel"]).parent


@dataclass(frozen=True)
class Nic:
    """One NIC of a guest. net: what the guest gives it ('10.1.0.5/24,10.1.0.1').

    source: of kind bridge, a Linux or, with `openvswitch`, an Open vSwitch bridge; of kind network, its name.
    offload: the guest may leave checksums to the host, which a userspace datapath does not make good.
    """

    mac: str
    net: str = ""
    kind: str = "ethernet"
    source: str = ""
    openvswitch: bool = False
    offload: bool = False
    portgroup: str = ""
    extra: str = ""

    def xml(self) -> str:
        group = f" portgroup={quoteattr(self.portgroup)}" if self.portgroup else ""
        source = f"<source {self.kind}={quoteattr(self.source)}{group}/>" if self.source else ""
        port = "<virtualport type='openvswitch'/>" if self.openvswitch else ""
        off = "csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'"
        driver = "" if self.offload else f"<driver><host {off}/></driver>"
        return (
            f"<interface type='{self.kind}'><mac address='{self.mac}'/>{source}{port}"
            f"<model type='virtio'/>{driver}<rom enabled='no'/>{self.extra}</interface>"
        )


class Hypervisor:
    """`.run(*argv)` runs a command on it; `.virsh(*argv)` is virsh; `.stack` its vswitchctl."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = unique("vt-hv-")
        self.uri = f"qemu:///system?socket={directory}/libvirt-sock"
        self._domains: list[str] = []
        self._libvirtd: int | None = None
        self._reapers: list[subprocess.Popen[bytes]] = []
        self._keeper = self._enter_namespaces()
        self.stack = HypervisorStack(self)

    def _enter_namespaces(self) -> subprocess.Popen[bytes]:
        etc = self.directory / "etc"
        etc.mkdir()
        conf = LIBVIRTD_CONF.format(directory=self.directory, uuid=uuid.uuid4())
        (etc / "libvirtd.conf").write_text(conf)
        (etc / "qemu.conf").write_text(QEMU_CONF)
        # libvirt looks for its package's user and group, though qemu.conf names others, and for its host.
        lines = {
            "passwd": "libvirt-qemu:x:64055:64055::/:/bin/false",
            "group": "libvirt-qemu:x:64055:",
            "hosts": f"127.0.0.1 {self.name}",
        }
        for file, line in lines.items():
            (self.directory / file).write_text(f"{Path('/etc', file).read_text()}{line}\n")
        argv = ["unshare", "--net", "--mount", "--uts", "sh", "-c", SETUP, "sh"]
        keeper = subprocess.Popen(
            [*argv, str(self.directory), str(guest_files()), self.name], stdout=subprocess.PIPE
        )
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"ready\n", "the namespaces of the hypervisor could not be set up"
        return keeper

    @property
    def prefix(self) -> tuple[str, ...]:
        """What puts a command into the namespaces."""
        return ("nsenter", "--target", str(self._keeper.pid), "--net", "--mount", "--uts", f"--wd={ROOT}")

    def run(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self.prefix, *argv], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        assert done.returncode == 0 or not check, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def succeeds(self, *argv: str) -> bool:
        done = subprocess.run(
            [*self.prefix, *argv], capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
        return done.returncode == 0

    def pings(self, address: str = "10.1.0.1") -> bool:
        """Whether the namespace `ns1` reaches an address by ping."""
        return self.succeeds("ip", "netns", "exec", "ns1", "ping", "-c1", "-W1", address)

    # -- libvirtd ----------------------------------------------------------------------------------------

    def start_libvirtd(self) -> None:
        pidfile = self.directory / "libvirtd.pid"
        pidfile.unlink(missing_ok=True)
        reaper = (sys.executable, str(Path(__file__).with_name("reaper.py")))
        argv = [*self.prefix, *reaper, "libvirtd", "-f", "/etc/libvirt/libvirtd.conf", "-p", str(pidfile)]
        with (self.directory / "libvirtd.out").open("ab") as output:
            self._reapers.append(subprocess.Popen(argv, stdout=output, stderr=output))
        until(lambda: self.succeeds("virsh", "-c", self.uri, "list"), "libvirtd answers")
        self._libvirtd = int(pidfile.read_text())

    def kill_libvirtd(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End libvirtd; its domains go on."""
        assert self._libvirtd is not None, "libvirtd does not run"
        handle = os.pidfd_open(self._libvirtd)
        signal.pidfd_send_signal(handle, number)
        os.close(handle)
        assert wait_exit(self._libvirtd, 30), "libvirtd goes on"
        self._libvirtd = None

    def virsh(self, *argv: str, check: bool = True) -> str:
        return self.run("virsh", "-q", "-c", self.uri, *argv, check=check)

    def define(self, name: str, *nics: Nic, more: str = "") -> None:
        """Define a domain; `boot` starts it."""
        words = [f"net={nic.mac},{nic.net}" for nic in nics if nic.net]
        # The kernel's command line takes no spaces in a word.
        plain = "".join(c for c in name if c.isascii() and c.isalnum())
        cmdline = " ".join(("console=ttyS0 quiet", f"name={plain}", *words))
        file = self.directory / f"{len(self._domains)}.xml"
        file.write_text(
            f"<domain type='qemu'><name>{escape(name)}</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>"
            f"<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{self.directory}/guest/vmlinuz</kernel>"
            f"<initrd>{self.directory}/guest/initramfs.gz</initrd><cmdline>{cmdline}</cmdline></os>"
            "<features><acpi/></features><devices><controller type='usb' model='none'/>"
            f"<serial type='unix'><source mode='bind' path='{self.console_path(name)}'/></serial>"
            f"<memballoon model='none'/>{''.join(nic.xml() for nic in nics)}{more}</devices></domain>"
        )
        self.virsh("define", str(file))
        self._domains.append(name)

    def console_path(self, name: str) -> Path:
        return self.directory / f"{name}.tty"

    def start(self, name: str) -> Console:
        """Start a defined domain; its console, which the guest may not have come to yet."""
        self.virsh("start", name)
        return Console(self.console_path(name))

    def boot(self, name: str) -> Console:
        """Start a defined domain and wait until the guest answers."""
        console = self.start(name)
        console.wait_for(" is ready")
        return console

    def tap(self, name: str, mac: str) -> str:
        """The device that stands for a NIC of a running domain, as virsh says."""
        rows = (line.split() for line in self.virsh("domiflist", name).splitlines())
        return next((row[0] for row in rows if row and row[-1] == mac and row[0] != "-"), "")

    def links(self) -> dict[str, dict[str, Any]]:
        return {link["ifname"]: link for link in json.loads(self.run("ip", "-j", "-d", "link", "show"))}

    def master(self, device: str) -> str:
        """The Linux bridge that a device is a port of."""
        return str(self.links()[device].get("master", ""))

    # -- the end -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """End every process inside; the namespaces, with every device, go with the last."""
        if self._libvirtd is not None:
            for name in self._domains:
                self.virsh("destroy", name, check=False)
            self.kill_libvirtd(signal.SIGTERM)
        for pid in self._inside():
            if pid not in {reaper.pid for reaper in self._reapers}:
                with contextlib.suppress(FileNotFoundError):  # it has just ended
                    end_process(pid, Path(f"/proc/{pid}/exe").resolve().name)
        for reaper in self._reapers:
            reaper.wait(30)
        self._keeper.kill()
        self._keeper.wait(10)
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()

    def _inside(self) -> list[int]:
        """The processes in the network namespace, but for the one that keeps it."""
        home = Path(f"/proc/{self._keeper.pid}/ns/net").stat().st_ino
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "ns" / "net").stat().st_ino == home:
                    found.append(int(entry.name))
        return [pid for pid in found if pid != self._keeper.pid and not wait_exit(pid, 0)]


@dataclass
class HypervisorStack(Stack):
    """`vswitchctl up` and all that follows, on a hypervisor."""

    host: Hypervisor
    uris: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.host.directory)
        self.env |= {"VSWITCHCTL_LIBVIRT_URIS": " ".join(self.uris or [self.host.uri])}

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [*self.host.prefix, sys.executable, "-m", "vswitchctl.cli.main", *arguments]
        return subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=180, check=False)

    def apply_text(self, text: str, code: int = 0) -> str:
        file = self.host.directory / "topology.yaml"
        file.write_text(text)
        return self.cli("apply", str(file), "--yes", code=code)

    def entity(self, topology: str, entity: str) -> tuple[str, str]:
        """(status, reason) of an entity."""
        detail = self.json("show", "topology", topology)
        return next((one["status"], one["reason"]) for one in detail["entities"] if one["entity"] == entity)

    def nothing_leaked(self, bridge: str) -> None:
        """No port without a device, and no flow of a port that is not there."""
        ports = json.loads(self.vsctl("--format=json", "--columns=name,ofport", "list", "Interface"))["data"]
        assert all(isinstance(ofport, int) and ofport > 0 for _, ofport in ports), ports
        numbers = {ofport for _, ofport in ports}
        for flow in self.ofctl("--no-names", "dump-flows", bridge).splitlines():
            if "in_port=" in flow:
                number = flow.partition("in_port=")[2].partition(",")[0].partition(" ")[0]
                assert int(number) in numbers, flow

    def port_bridge(self, device: str) -> str:
        """The Open vSwitch bridge that a device is a port of, '' where of none."""
        return self.vsctl("port-to-br", device, check=False) if device else ""

    def external_ids(self, device: str) -> dict[str, str]:
        """Of the Interface row of a device."""
        text = self.vsctl("--format=json", "--columns=external_ids", "find", "Interface", f"name={device}")
        rows = json.loads(text)["data"]
        return dict(rows[0][0][1]) if rows else {}


@contextlib.contextmanager
def hypervisor() -> Iterator[Hypervisor]:
    """A running one, without vswitchctl yet."""
    directory = Path(tempfile.mkdtemp(prefix="vm", dir="/tmp"))
    host = Hypervisor(directory)
    try:
        host.start_libvirtd()
        yield host
    finally:
        host.close()
        shutil.rmtree(directory)
