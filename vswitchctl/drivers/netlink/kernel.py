"""System calls that Python 3.11 lacks: network namespaces, mounts, inotify, ethtool. Each raises OSError."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

NETNS_DIR = Path("/run/netns")
"""Where ip-netns(8) keeps named namespaces."""

MARK_SIZE = 512
"""Characters read of a file that may hold a mark: an ifalias has at most 255 (IFALIASZ)."""

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED, MNT_DETACH = 4096, 16384, 1 << 20, 2
"""sched.h, mount(2), umount2(2)."""

IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_NONBLOCK, IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
"""inotify(7)."""

SIOCGIFINDEX, SIOCETHTOOL = 0x8933, 0x8946
ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM = 0x16, 0x17
"""linux/sockios.h, linux/ethtool.h."""

TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
"""linux/if_tun.h."""

FORWARDING = (
    Path("/proc/sys/net/ipv4/conf/all/forwarding"),
    Path("/proc/sys/net/ipv6/conf/all/forwarding"),
)
"""What they show is of the thread that opens them."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def setns(descriptor: int) -> None:
    """Move the calling thread into a network namespace."""
    _check(_libc.setns(descriptor, CLONE_NEWNET), "setns")


def unshare() -> None:
    """Move the calling thread into a new network namespace."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare")


def _mount(source: str, target: str, flags: int) -> None:
    _check(_libc.mount(source.encode(), target.encode(), b"none", flags, None), f"mount {target}")


def prepare_netns_dir() -> None:
    """Make NETNS_DIR a shared mount, as ip-netns(8) does: an unmount must reach every mount namespace."""
    NETNS_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(NETNS_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # ip-netns takes the same lock: mounted twice, a namespace's lower mount would outlive its name.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            _mount("", str(NETNS_DIR), MS_SHARED | MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _mount(str(NETNS_DIR), str(NETNS_DIR), MS_BIND | MS_REC)
            _mount("", str(NETNS_DIR), MS_SHARED | MS_REC)
    finally:
        os.close(lock)


def raise_file_limit() -> None:
    """As many descriptors as we may have: each namespace takes two, and 1024 is what most processes get."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def own_namespace() -> int:
    """The inode that stands for the calling thread's network namespace."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def open_namespace(name: str) -> int:
    return os.open(NETNS_DIR / name, os.O_RDONLY | os.O_CLOEXEC)


def named_namespaces() -> dict[str, tuple[int, int] | None]:
    """Name under NETNS_DIR -> what tells its namespace from a later one, None where nothing is mounted."""
    mounted = Path("/proc/thread-self/ns/net").stat().st_dev
    found: dict[str, tuple[int, int] | None] = {}
    for entry in os.scandir(NETNS_DIR):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            # Inode numbers are used again; nsfs sets the time when it makes the inode.
            here = (status.st_ino, status.st_ctime_ns) if status.st_dev == mounted else None
            found[entry.name] = here
    return found


def identity(name: str) -> tuple[int, int]:
    """What `named_namespaces` says of a name. Raises OSError."""
    status = (NETNS_DIR / name).stat()
    return status.st_ino, status.st_ctime_ns


def read_mark(name: str) -> str:
    """What a name's file says while nothing is mounted on it: our mark; nothing in those of ip-netns(8)."""
    try:
        with (NETNS_DIR / name).open(errors="replace") as file:
            return file.read(MARK_SIZE)
    except OSError:
        return ""


def name_namespace(name: str, mark: str) -> None:
    """Give the calling thread's network namespace a name. Raises FileExistsError where it is taken.

    The file beneath the mount holds the mark, so what a crash leaves of it is known for ours.
    """
    path = NETNS_DIR / name
    try:
        _place(path, mark)
    except FileExistsError:
        left = read_mark(name)
        if named_namespaces().get(name) is not None or (left and _host_of(left) != _host_of(mark)):
            raise
        # A file without a namespace is what a crash left, and serves.
        path.write_text(mark)
    try:
        _mount("/proc/thread-self/ns/net", str(path), MS_BIND)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _host_of(mark: str) -> str:
    """Which host's a mark is: its last word."""
    return mark.rpartition(" ")[2]


def _place(path: Path, mark: str) -> None:
    """A file that holds its mark as soon as it has its name, where the file system can do that."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        file, named = _file(path)
        try:
            os.write(file, mark.encode())
            if not named:
                # The way of open(2) to name such a file; with a directory it is linkat(2), which follows.
                os.link(f"/proc/self/fd/{file}", path.name, dst_dir_fd=directory, follow_symlinks=True)
        finally:
            os.close(file)
    finally:
        os.close(directory)


def _file(path: Path) -> tuple[int, bool]:
    """A new file, and whether it has its name already."""
    try:
        return os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600), False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), True


def drop_namespace(name: str) -> None:
    """Take the name away; the kernel takes the namespace apart once nobody uses it."""
    path = NETNS_DIR / name
    try:
        _check(_libc.umount2(str(path).encode(), MNT_DETACH), f"umount {path}")
    except OSError as error:
        if error.errno != errno.EINVAL:  # not a mount point: a file that a crash left
            raise
    path.unlink()


class Inotify:
    """Names that come and go in a directory."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = _check(_libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify_init1")
        mask = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO
        watch = os.fsencode(directory)
        _check(_libc.inotify_add_watch(self._descriptor, watch, mask), f"inotify_add_watch {directory}")

    def fileno(self) -> int:
        return self._descriptor

    def names(self) -> Iterator[tuple[str, bool]]:
        """(name, whether it went), for every event so far."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + length].rstrip(b"\0")
            at += 16 + length
            yield os.fsdecode(name), bool(mask & (IN_DELETE | IN_MOVED_FROM))

    def close(self) -> None:
        os.close(self._descriptor)


def _ethtool(descriptor: int, device: str, command: int, data: int) -> int:
    value = (ctypes.c_uint32 * 2)(command, data)
    fcntl.ioctl(descriptor, SIOCETHTOOL, struct.pack("16sP", device.encode(), ctypes.addressof(value)))
    return int(value[1])


def tx_checksum(descriptor: int, device: str) -> bool:
    """Whether a device leaves transmit checksums to hardware. The socket says in which namespace."""
    return bool(_ethtool(descriptor, device, ETHTOOL_GTXCSUM, 0))


def set_tx_checksum(descriptor: int, device: str, on: bool) -> None:
    """Turn transmit checksum offload on or off."""
    _ethtool(descriptor, device, ETHTOOL_STXCSUM, int(on))


def make_tun(device: str, user: int | None) -> None:
    """A persistent TUN device in the calling thread's namespace, or what is there made so. Raises OSError."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
        if user is not None:
            # An ioctl's argument is signed here, a user id is not.
            fcntl.ioctl(descriptor, TUNSETOWNER, ctypes.c_int32(user).value)
        fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


def forwards() -> bool:
    """Whether the calling thread's namespace forwards IPv4, and IPv6 where there is any."""
    return all(path.read_text().strip() == "1" for path in FORWARDING if path.exists())


def forward() -> None:
    """Let the calling thread's namespace forward: ip-sysctl."""
    for path in FORWARDING:
        if path.exists():
            path.write_text("1")


def interface_index(descriptor: int, device: str) -> int:
    """The ifindex of a device in the socket's namespace: netdevice(7)."""
    answer = fcntl.ioctl(descriptor, SIOCGIFINDEX, struct.pack("16si20x", device.encode(), 0))
    return int(struct.unpack_from("16si", answer)[1])
