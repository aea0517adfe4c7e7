"""The daemon's REST API as a typed client: the same views, and the same errors, as on the other side."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError

from vswitchctl.errors import (
    Conflict,
    InternalError,
    InvalidTopology,
    NotFound,
    RetryableError,
    Unreachable,
    UserError,
    VswitchctlError,
)
from vswitchctl.model.intent import PolicyChange
from vswitchctl.model.policy import Rule
from vswitchctl.model.topology import Topology
from vswitchctl.model.trace import TraceRequest, TraceView
from vswitchctl.model.views import (
    AclLogLine,
    AclRuleView,
    BridgeView,
    FlowView,
    HostView,
    LinkView,
    OperationState,
    OperationView,
    PlanView,
    PortView,
    Problem,
    TenantView,
    TopologyDetail,
    TopologyDocument,
    TopologyView,
)
from vswitchctl.model.vm_views import LibvirtNetworkView, NicRequest, VmView
from vswitchctl.topology.document import Finding
from vswitchctl.topology.nearest import one_of

API = "/api/v1"

ANSWER_SECONDS = 60.0
"""The longest silence of a daemon at work: a plan of 100,000 flows takes seconds, streams repeat in 5 s."""

BYTES_PER_SECOND = 50_000
"""What a loaded machine reads, checks and stores of a document at the least: 10,000 endpoints are 3 MB."""

_ERRORS: dict[str, type[VswitchctlError]] = {
    "not-found": NotFound,
    "conflict": Conflict,
    "user-error": UserError,
    "invalid-request": UserError,
    "not-ready": RetryableError,
    "internal-error": InternalError,
}

V = TypeVar("V", bound=BaseModel)

_Rules = RootModel[tuple[Rule, ...]]


class Client:
    """One connection to the daemon. Every call raises Unreachable where it does not answer."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket_path)),
            base_url=f"http://vswitchctl{API}",
            timeout=ANSWER_SECONDS,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def topologies(self) -> tuple[TopologyView, ...]:
        return self._list("/topologies", TopologyView)

    def topology(self, name: str) -> TopologyDetail:
        with self._naming(name):
            return self._one("GET", f"/topologies/{_part(name)}", TopologyDetail)

    def plan(self, document: TopologyDocument, *, flows: bool = False) -> PlanView:
        return self._one("POST", "/topologies:plan", PlanView, document, flows=flows)

    def plan_destroy(self, name: str) -> PlanView:
        with self._naming(name):
            return self._one("POST", f"/topologies/{_part(name)}:plan-destroy", PlanView)

    def apply(
        self,
        document: TopologyDocument,
        *,
        expected_generation: int | None = None,
        wait: float | None = None,
    ) -> OperationView:
        """wait: seconds to wait for the end, where no progress is to be shown meanwhile."""
        path = f"/topologies/{_part(document.topology.name)}"
        query = {"expected_generation": expected_generation, "wait": wait}
        return self._one("PUT", path, OperationView, document, **query)

    def policy(self, topology: str, section: str, name: str) -> Any:
        """One ACL or group, as a topology file has it."""
        with self._naming(topology):
            path = f"/topologies/{_part(topology)}/{section}/{_part(name)}"
            return self._send("GET", path, None, {}).json()

    def change_policy(
        self,
        topology: str,
        change: PolicyChange,
        *,
        expected_generation: int | None = None,
        wait: float | None = None,
    ) -> OperationView:
        """Put one ACL or group in place, or remove it. wait: as for `apply`."""
        path = f"/topologies/{_part(topology)}/{change.section}/{_part(change.name)}"
        query: dict[str, Any] = {"expected_generation": expected_generation, "wait": wait}
        with self._naming(topology):
            if change.value is None:
                return self._one("DELETE", path, OperationView, None, **query)
            body = change.value if isinstance(change.value, BaseModel) else _Rules(change.value)
            return self._one("PUT", path, OperationView, body, **query, source=change.source)

    def destroy(self, name: str) -> OperationView:
        with self._naming(name):
            return self._one("DELETE", f"/topologies/{_part(name)}", OperationView)

    def operation(self, operation_id: str) -> OperationView:
        return self._one("GET", f"/operations/{_part(operation_id)}", OperationView)

    def events(self, operation_id: str, seconds: float) -> Iterator[OperationView]:
        """The operation as it changes, to its end or for `seconds`. Raises Unreachable where that breaks."""
        deadline = time.monotonic() + seconds
        path = f"/operations/{_part(operation_id)}/events"
        view: OperationView | None = None
        with (
            self._reaching(),
            self._http.stream("GET", path, params={"wait": seconds}) as answer,
        ):
            if answer.is_error:
                answer.read()
                raise _error(answer)
            for line in answer.iter_lines():
                view = self._parsed(line.encode(), OperationView)
                yield view
        running = view is None or view.state is OperationState.RUNNING
        if running and time.monotonic() < deadline:
            raise self._gone()

    def hosts(self) -> tuple[HostView, ...]:
        return self._list("/hosts", HostView)

    def bridges(self) -> tuple[BridgeView, ...]:
        return self._list("/bridges", BridgeView)

    def ports(self) -> tuple[PortView, ...]:
        return self._list("/ports", PortView)

    def links(self) -> tuple[LinkView, ...]:
        return self._list("/links", LinkView)

    def tenants(self) -> tuple[TenantView, ...]:
        return self._list("/tenants", TenantView)

    def flows(self, query: dict[str, Any]) -> tuple[FlowView, ...]:
        """query: as the API has it; see `FlowQuery`."""
        return self._list("/flows", FlowView, **query)

    def flows_text(self, query: dict[str, Any]) -> str:
        """As ovs-ofctl has them."""
        return self._send("GET", "/flows", None, {**query, "format": "ofctl"}).text

    def trace(self, request: TraceRequest) -> TraceView:
        return self._one("POST", "/trace", TraceView, request)

    def acls(self) -> tuple[AclRuleView, ...]:
        return self._list("/acls", AclRuleView)

    def acl_log(self, after: int = 0, wait: float = 0.0) -> tuple[AclLogLine, ...]:
        """Lines above a number; waits for one for `wait` seconds (at most 5) where there is none."""
        return self._list("/acls/log", AclLogLine, after=after, wait=wait)

    def vms(self) -> tuple[VmView, ...]:
        return self._list("/vms", VmView)

    def libvirt_networks(self) -> tuple[LibvirtNetworkView, ...]:
        return self._list("/vms:networks", LibvirtNetworkView)

    def discover(self, name: str, tenant: str) -> Topology:
        return self._one("GET", "/vms:discover", Topology, name=name, tenant=tenant)

    def attach(self, domain: str, request: NicRequest) -> None:
        self._send("POST", f"/vms/{_part(domain)}/nics", request, {})

    def detach(self, domain: str, mac: str, *, config: bool) -> None:
        self._send("DELETE", f"/vms/{_part(domain)}/nics/{_part(mac)}", None, {"config": config})

    def _one(self, method: str, path: str, kind: type[V], body: BaseModel | None = None, **query: Any) -> V:
        return self._parsed(self._send(method, path, body, query).content, kind)

    def _list(self, path: str, kind: type[V], **query: Any) -> tuple[V, ...]:
        content = self._send("GET", path, None, query).content
        try:
            return TypeAdapter(tuple[kind, ...]).validate_json(content)  # type: ignore[valid-type]
        except ValidationError as error:
            raise self._strange(error) from error

    def _parsed(self, content: bytes, kind: type[V]) -> V:
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise self._strange(error) from error

    def _send(self, method: str, path: str, body: BaseModel | None, query: dict[str, Any]) -> httpx.Response:
        content = body.model_dump_json(exclude_unset=True) if body is not None else None
        given = {name: value for name, value in query.items() if value is not None}
        headers = {"Content-Type": "application/json"} if content is not None else {}
        silence = (
            ANSWER_SECONDS
            + given.get("wait", 0.0)
            + given.get("window", 0.0)
            + len(content or "") / BYTES_PER_SECOND
        )
        with self._reaching(silence):
            answer = self._http.request(
                method, path, content=content, params=given, headers=headers, timeout=silence
            )
        if answer.is_error:
            raise _error(answer)
        return answer

    @contextmanager
    def _reaching(self, silence: float = ANSWER_SECONDS) -> Iterator[None]:
        """Say what a failed connection means to a person. silence: seconds that are waited for an answer."""
        try:
            yield
        except httpx.ConnectError as error:
            raise self._no_connection(error) from error
        except httpx.TimeoutException as error:
            raise Unreachable(
                f"the daemon at {self._path} was silent for {silence:.0f} s", "see its log"
            ) from error
        except httpx.TransportError as error:
            raise self._gone() from error

    def _no_connection(self, error: Exception) -> VswitchctlError:
        number = _errno(error)
        if self._path.exists() and not self._path.is_socket():
            return UserError(f"{self._path} is not a socket", "--socket names the daemon's")
        if number in (errno.EACCES, errno.EPERM):
            return UserError(f"permission denied at {self._path}", "run it as root: sudo vswitchctl ...")
        if number in (errno.ENOENT, errno.ECONNREFUSED):
            return Unreachable(f"the daemon does not answer at {self._path}", "start it: sudo vswitchctl up")
        return UserError(f"{self._path} cannot be the daemon's socket: {error}", "see --socket")

    def _gone(self) -> Unreachable:
        return Unreachable(
            f"the daemon at {self._path} went away before it answered",
            "see its log; start it: sudo vswitchctl up",
        )

    def _strange(self, error: ValidationError) -> InternalError:
        return InternalError(
            f"the daemon at {self._path} answers in another form than this version reads"
            f" ({error.error_count()} differences)",
            "compare vswitchctl version with the daemon's; restart the daemon after an upgrade",
        )

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """To an unknown topology name, add the nearest known one."""
        try:
            yield
        except NotFound as error:
            names = [view.name for view in self.topologies()]
            if name in names:
                raise
            raise NotFound(error.message, _remedy(name, names, "vswitchctl show topologies")) from error


def _remedy(name: str, known: list[str], listing: str) -> str:
    """For an unknown name: the nearest known one, else the few known ones, else where they are listed."""
    return one_of(name, known, "there is") or (f"list them: {listing}" if known else "there is none yet")


def _part(text: str) -> str:
    return quote(text, safe="")


def _errno(error: BaseException | None) -> int | None:
    """The errno at the root of httpx's chain of causes."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _error(answer: httpx.Response) -> VswitchctlError:
    """The error that a problem document stands for."""
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValidationError:
        return InternalError(f"the daemon answered {answer.status_code} without saying why", "see its log")
    kind = problem.type.rpartition(":")[2]
    if kind == "invalid-topology":
        return InvalidTopology(tuple(_finding(item) for item in problem.findings))
    texts = [f"{item.get('path', '')}: {item.get('message', '')}" for item in problem.findings]
    message = " · ".join([problem.detail or problem.title, *texts])
    return _ERRORS.get(kind, UserError if problem.status < 500 else InternalError)(message, problem.remedy)


def _finding(item: dict[str, Any]) -> object:
    try:
        return Finding(**item)
    except TypeError:
        return item.get("message", item)
