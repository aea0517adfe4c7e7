"""The REST API as a client sees it: statuses, headers, problem documents, streams, OpenAPI."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from memory_service import MemoryService
from served_api import DEADLINE, Served, document, served_api, topology

from vswitchctl.api.app import create_app
from vswitchctl.api.limits import BODY_MAX
from vswitchctl.errors import (
    ApplyError,
    Conflict,
    InternalError,
    NotFound,
    Unreachable,
    UserError,
    VswitchctlError,
)
from vswitchctl.model.query import FlowQuery
from vswitchctl.model.views import AclLogLine, AclRuleView, FlowView, OperationView, Problem, TopologyDetail


@pytest.fixture
def api() -> Iterator[Served]:
    with served_api() as served:
        yield served


def problem(answer: httpx.Response, status: int) -> Problem:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(answer.content)
    assert found.status == status
    return found


def apply(api: Served, body: dict[str, Any], **query: Any) -> httpx.Response:
    return api.http.put(f"/topologies/{body['topology']['name']}", json=body, params=query)


def test_an_applied_topology_is_listed_and_read_back(api: Served) -> None:
    assert api.http.get("/topologies").json() == []
    assert apply(api, document(), wait=DEADLINE).status_code == 200
    assert [view["name"] for view in api.http.get("/topologies").json()] == ["pair"]
    detail = TopologyDetail.model_validate_json(api.http.get("/topologies/pair").content)
    assert detail.document.model_dump(mode="json", exclude_unset=True)["name"] == "pair"
    assert {entity.source for entity in detail.entities if entity.entity == "nodes/web1"} == {"pair.yaml:7"}


def test_apply_answers_at_once_with_the_operation_and_its_address(api: Served) -> None:
    api.service.gate.clear()
    answer = apply(api, document())
    assert answer.status_code == 202
    operation = OperationView.model_validate_json(answer.content)
    assert operation.state == "running"
    assert answer.headers["location"] == f"/api/v1/operations/{operation.id}"
    assert api.http.get(f"http://test{answer.headers['location']}").json()["id"] == operation.id


def test_wait_ends_with_200_when_done_and_202_when_not_yet(api: Served) -> None:
    api.service.gate.clear()
    answer = apply(api, document(), wait=0.05)
    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    api.service.gate.set()
    answer = api.http.delete("/topologies/pair", params={"wait": DEADLINE})
    assert (answer.status_code, answer.json()["state"]) == (200, "done")


def test_waiting_for_an_apply_that_fails_is_a_problem_that_names_every_error(api: Served) -> None:
    api.service.failing["nodes/web1"] = "the kernel refused: EBUSY"
    found = problem(apply(api, document(), wait=DEADLINE), 502)
    assert found.type == "urn:vswitchctl:problem:operation-failed"
    assert found.findings == ({"message": "nodes/web1: the kernel refused: EBUSY"},)


def test_events_stream_every_state_to_the_end(api: Served) -> None:
    api.service.gate.clear()
    operation = apply(api, document()).json()
    views: list[dict[str, Any]] = []
    with api.http.stream("GET", f"/operations/{operation['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        for line in answer.iter_lines():
            views.append(json.loads(line))
            api.service.gate.set()
    assert views[0] == operation
    assert [view["done"] for view in views] == sorted(view["done"] for view in views)
    assert (views[-1]["state"], views[-1]["done"]) == ("done", operation["total"])


def test_events_end_after_the_asked_time_while_the_operation_runs_on(api: Served) -> None:
    api.service.gate.clear()
    operation = apply(api, document()).json()
    answer = api.http.get(f"/operations/{operation['id']}/events", params={"wait": 0.05})
    assert {json.loads(line)["state"] for line in answer.text.splitlines()} == {"running"}


def test_many_streams_leave_the_api_answering(api: Served) -> None:
    """60 waiting streams are more than the 40 threads that short calls have."""
    api.service.gate.clear()
    operation = apply(api, document()).json()
    ends: list[str] = []

    def follow() -> None:
        answer = api.http.get(f"/operations/{operation['id']}/events")
        ends.append(json.loads(answer.text.splitlines()[-1])["state"])

    threads = [threading.Thread(target=follow) for _ in range(60)]
    for thread in threads:
        thread.start()
    assert api.http.get("/hosts").status_code == 200
    api.service.gate.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert ends == ["done"] * 60


def test_plan_counts_and_explains(api: Served) -> None:
    plan = api.http.post("/topologies:plan", json=document()).json()
    assert (plan["generation"], len(plan["changes"])) == (0, 5)
    web1 = next(change for change in plan["changes"] if change["entity"] == "nodes/web1")
    assert (web1["action"], web1["source"]) == ("add", "pair.yaml:7")
    with_flows = api.http.post("/topologies:plan", json=document(), params={"flows": True}).json()
    assert {change["kind"] for change in with_flows["changes"]} - {c["kind"] for c in plan["changes"]} == {
        "flow"
    }


def test_plan_destroy_removes_everything(api: Served) -> None:
    apply(api, document(), wait=DEADLINE)
    plan = api.http.post("/topologies/pair:plan-destroy").json()
    assert [change["action"] for change in plan["changes"]] == ["remove"] * 5
    problem(api.http.post("/topologies/other:plan-destroy"), 404)


def test_an_outdated_generation_is_a_conflict(api: Served) -> None:
    assert apply(api, document(), expected_generation=0, wait=DEADLINE).status_code == 200
    problem(apply(api, document(), expected_generation=0), 409)
    assert apply(api, document(), expected_generation=1).status_code == 202


def test_the_address_and_the_document_must_agree(api: Served) -> None:
    found = problem(api.http.put("/topologies/other", json=document()), 400)
    assert "'pair'" in found.detail
    assert found.remedy == "PUT it to /api/v1/topologies/pair"
    assert api.service.topologies() == ()


@pytest.mark.parametrize("method, path", [("POST", "/topologies:plan"), ("PUT", "/topologies/pair")])
def test_a_document_with_errors_is_refused_with_every_finding_at_its_place(
    api: Served, method: str, path: str
) -> None:
    body = document()
    body["topology"]["nodes"]["web1"]["interfaces"]["eth0"]["network"] = "wan"
    body["topology"]["links"][1]["ends"] = ["web9:eth0", "br-a"]
    found = problem(api.http.request(method, path, json=body), 422)
    assert found.type == "urn:vswitchctl:problem:invalid-topology"
    wan = next(finding for finding in found.findings if "'wan'" in finding["message"])
    assert (wan["severity"], wan["path"]) == ("error", "nodes.web1.interfaces.eth0.network")
    assert any("web9" in finding["message"] for finding in found.findings)
    assert api.service.topologies() == ()


def test_a_finding_has_the_place_of_its_entity_in_the_senders_file(api: Served) -> None:
    body = document()
    body["topology"]["nodes"]["web1"]["tenant"] = "green"
    found = problem(api.http.post("/topologies:plan", json=body), 422)
    green = next(finding for finding in found.findings if "'green'" in finding["message"])
    assert (green["file"], green["line"]) == ("pair.yaml", 7)


def test_a_request_of_another_shape_names_the_place(api: Served) -> None:
    body = document()
    body["topology"]["nodes"]["web1"]["colour"] = "red"
    found = problem(api.http.post("/topologies:plan", json=body), 422)
    assert found.type == "urn:vswitchctl:problem:invalid-request"
    assert any(finding["path"].endswith("web1.namespace.colour") for finding in found.findings)
    problem(
        api.http.post("/topologies:plan", content=b"{", headers={"content-type": "application/json"}), 422
    )


@pytest.mark.parametrize(
    "error, status, kind",
    [
        (UserError("no", "do"), 400, "user-error"),
        (NotFound("no", "do"), 404, "not-found"),
        (Conflict("no", "do"), 409, "conflict"),
        (Unreachable("no", "do"), 503, "not-ready"),
        (ApplyError("no", "do"), 503, "not-ready"),
        (InternalError("no", "do"), 500, "internal-error"),
    ],
)
def test_each_class_of_error_has_its_status(
    api: Served, monkeypatch: pytest.MonkeyPatch, error: VswitchctlError, status: int, kind: str
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr(api.service, "hosts", refuse)
    answer = api.http.get("/hosts")
    found = problem(answer, status)
    assert (found.type, found.detail, found.remedy) == (f"urn:vswitchctl:problem:{kind}", "no", "do")
    assert ("retry-after" in answer.headers) is error.retryable


def test_a_defect_is_a_problem_and_the_daemon_goes_on(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise IndexError("out of range")

    monkeypatch.setattr(api.service, "hosts", fail)
    found = problem(api.http.get("/hosts"), 500)
    assert found.detail.startswith("GET /api/v1/hosts: IndexError")
    assert api.http.get("/bridges").status_code == 200


def test_unknown_addresses_and_methods_are_problems(api: Served) -> None:
    problem(api.http.get("/nonsense"), 404)
    problem(api.http.post("/hosts"), 405)
    problem(api.http.get("/operations/none"), 404)
    problem(api.http.get("/operations/none/events"), 404)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused(api: Served, chunked: bool) -> None:
    chunk = b"x" * 2**20
    count = BODY_MAX // len(chunk) + 1
    content = (chunk for _ in range(count)) if chunked else chunk * count
    found = problem(api.http.post("/topologies:plan", content=content), 413)
    assert str(BODY_MAX) in found.detail


def test_nouns_answer_lists(api: Served) -> None:
    apply(api, document(bridges=("br-a", "br-b")), wait=DEADLINE)
    counts = {
        noun: len(api.http.get(f"/{noun}").json())
        for noun in ("hosts", "bridges", "ports", "links", "tenants")
    }
    assert counts == {"hosts": 1, "bridges": 2, "ports": 4, "links": 3, "tenants": 1}


def test_flows_of_a_bridge(api: Served) -> None:
    view = FlowView(bridge="br-a", table="l2", priority=1, match="in_port=1", actions="2", cookie="0x1")
    api.service.flow_views["br-a"] = (view,)
    assert api.http.get("/flows", params={"bridge": "br-a"}).json() == [view.model_dump(mode="json")]
    problem(api.http.get("/flows", params={"bridge": "br-z"}), 404)
    problem(api.http.get("/flows", params={"bridge": "br-a", "source": "guessed"}), 422)
    problem(api.http.get("/flows", params={"fields": "tabel"}), 400)
    assert api.http.get("/flows", params={"table": "none"}).json() != []


def test_flows_in_every_form(api: Served) -> None:
    views = tuple(
        FlowView(bridge="br-a", table="flood", table_id=82, priority=n, match="reg0=0x1", actions="drop",
                 cookie="0x76", packets=n, bytes=60 * n, age=1.5, idle_timeout=5)
        for n in range(3)
    )  # fmt: skip
    api.service.flow_views["br-a"] = views
    lines = api.http.get("/flows", params={"format": "ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [FlowView.model_validate_json(line) for line in lines.text.splitlines()] == list(views)
    assert api.http.get("/flows", params={"fields": "table, packets"}).json() == [
        {"table": "flood", "packets": n} for n in range(3)
    ]
    text = api.http.get("/flows", params={"format": "ofctl", "limit": 1})
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text == (
        " cookie=0x76, duration=1.500s, table=82, n_packets=0, n_bytes=0, idle_timeout=5,"
        " priority=0,reg0=0x1 actions=drop\n"
    )
    api.service.flow_views["br-a"] = ()
    assert api.http.get("/flows").json() == []


def test_a_query_of_flows_arrives_as_asked(api: Served) -> None:
    asked = {"match": ["ip_dst=10.1.0.5", "tcp_dst=80"], "acl": "web", "rule": 3, "sort": "rate", "window": 2}
    assert api.http.get("/flows", params=asked).json() == []
    assert api.service.queries[-1] == FlowQuery(
        match=("ip_dst=10.1.0.5", "tcp_dst=80"), acl="web", rule=3, sort="rate", window=2
    )
    api.http.get("/flows", params={"format": "ndjson"})
    assert api.service.queries[-1].sort == "none"


def test_an_acl_that_costs_too_much_is_refused_at_its_place(api: Served) -> None:
    body = document()
    group = {"addresses": [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32" for n in range(1, 10003)]}
    rule = {"direction": "in", "action": "deny", "from": {"group": "many"}}
    body["topology"] |= {"groups": {"many": group}, "acls": {"web": [rule]}}
    body["sources"]["acls/web"] = "pair.yaml:30"
    for answer in (apply(api, body), api.http.post("/topologies:plan", json=body)):
        (finding,) = problem(answer, 422).findings
        assert finding["path"] == "acls.web" and finding["line"] == 30
        assert finding["message"].startswith("10002 flows, and 10000 are the most; rule 1 costs the most")
    assert api.http.get("/topologies").json() == []


def test_rules_of_all_topologies_and_of_one(api: Served) -> None:
    rule = {"acl": "web", "number": 1, "direction": "in", "action": "deny", "words": "any", "packets": 7}
    views = tuple(AclRuleView(topology=name, **rule) for name in ("pair", "other"))
    api.service.rule_views = views
    apply(api, document(), wait=DEADLINE)
    assert api.http.get("/acls").json() == [view.model_dump(mode="json") for view in views]
    assert [view["topology"] for view in api.http.get("/topologies/pair/acls").json()] == ["pair"]
    problem(api.http.get("/topologies/none/acls"), 404)


def test_the_log_goes_on_after_a_number(api: Served) -> None:
    said = {"topology": "pair", "acl": "web", "rule": 1, "verdict": "deny", "direction": "in", "bridge": "br"}
    when = datetime(2026, 1, 31, 12, tzinfo=UTC)
    lines = tuple(AclLogLine(number=n, time=when, packet=f"tcp {n}", **said) for n in (1, 2, 3))
    api.service.log_lines = lines
    assert [line["packet"] for line in api.http.get("/acls/log").json()] == ["tcp 1", "tcp 2", "tcp 3"]
    (last,) = api.http.get("/acls/log", params={"after": 2, "wait": 1}).json()
    assert AclLogLine.model_validate(last) == lines[2]
    problem(api.http.get("/acls/log", params={"wait": 6}), 422)
    problem(api.http.get("/acls/log", params={"after": -1}), 422)


RULE = {"direction": "in", "action": "allow", "protocol": "tcp", "ports": [80], "from": "10.0.0.0/8"}


def test_one_acl_and_one_group_are_put_read_and_removed_alone(api: Served) -> None:
    assert apply(api, document(), wait=DEADLINE).status_code == 200
    entries: dict[str, Any] = {
        "/topologies/pair/acls/web": [{**RULE, "from": {"cidr": "10.0.0.0/8"}}],
        "/topologies/pair/groups/clients": {"members": ["web1:eth0"]},
    }
    for address, body in entries.items():
        assert problem(api.http.get(address), 404).detail.startswith("topology 'pair' has no ")
        answer = api.http.put(address, json=body, params={"wait": DEADLINE})
        assert (answer.status_code, answer.json()["state"]) == (200, "done")
        assert api.http.get(address).json() == body
    stored = api.service.document("pair")
    assert (list(stored.acls), list(stored.groups)) == (["web"], ["clients"])
    for address in entries:
        assert api.http.delete(address, params={"wait": DEADLINE}).status_code == 200
        problem(api.http.delete(address), 404)
    assert not api.service.document("pair").acls


def test_an_acl_is_put_at_a_generation_and_answers_at_once(api: Served) -> None:
    apply(api, document(), wait=DEADLINE)
    address = "/topologies/pair/acls/web"
    found = problem(api.http.put(address, json=[RULE], params={"expected_generation": 7}), 409)
    assert "generation 1 by now" in found.detail
    api.service.gate.clear()
    answer = api.http.put(address, json=[RULE], params={"expected_generation": 1})
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/operations/{answer.json()['id']}"
    assert answer.json()["generation"] == 2


@pytest.mark.parametrize(
    ("address", "body", "path"),
    [
        ("acls/web", [{"direction": "in", "action": "let"}], "body.0.action"),
        ("acls/web", [{**RULE, "port": 80}], "body.0.port"),
        ("acls/we b", [RULE], "path.name"),
        ("groups/g", {"member": ["web1:eth0"]}, "body.member"),
    ],
)
def test_an_acl_or_group_of_another_shape_is_refused(api: Served, address: str, body: Any, path: str) -> None:
    apply(api, document(), wait=DEADLINE)
    found = problem(api.http.put(f"/topologies/pair/{address}", json=body), 422)
    assert path in [finding["path"] for finding in found.findings]


def test_an_acl_of_an_unknown_topology_is_not_found(api: Served) -> None:
    for answer in (
        api.http.get("/topologies/none/acls/web"),
        api.http.put("/topologies/none/acls/web", json=[RULE]),
        api.http.delete("/topologies/none/groups/g"),
    ):
        assert "no topology 'none'" in problem(answer, 404).detail


def test_openapi_describes_every_call_and_its_problems() -> None:
    schema = create_app(MemoryService()).openapi()
    assert json.loads(json.dumps(schema)) == schema
    assert {path.removeprefix("/api/v1") for path in schema["paths"]} == {
        "/topologies",
        "/topologies:plan",
        "/topologies/{name}",
        "/topologies/{name}:plan-destroy",
        "/operations/{operation_id}",
        "/operations/{operation_id}/events",
        *(f"/{noun}" for noun in ("hosts", "bridges", "ports", "links", "tenants", "flows", "acls")),
        "/topologies/{name}/acls",
        "/topologies/{topology}/acls/{name}",
        "/topologies/{topology}/groups/{name}",
        "/trace",
        "/acls/log",
        "/vms",
        "/vms:networks",
        "/vms:discover",
        "/vms/{domain}/nics",
        "/vms/{domain}/nics/{mac}",
    }
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["description"]
            assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]
            assert "422" not in operation["responses"]
    put = schema["paths"]["/api/v1/topologies/{name}"]["put"]
    assert {"200", "202"} <= set(put["responses"])


def test_openapi_names_only_schemas_that_are_there() -> None:
    schema = create_app(MemoryService()).openapi()
    text = json.dumps(schema)
    named = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named <= set(schema["components"]["schemas"])
    assert {"Problem", "OperationView", "PlanView", "TopologyDocument"} <= named


def test_the_topology_goes_through_unchanged(api: Served) -> None:
    """What is stored is what was sent, derived values and defaults aside."""
    apply(api, {"topology": topology()}, wait=DEADLINE)
    stored = api.service.topology("pair").document
    assert stored.model_dump(mode="json", exclude_unset=True)["nodes"]["br-a"] == {"kind": "bridge"}
    assert list(stored.nodes) == ["br-a", "web1", "web2"]
