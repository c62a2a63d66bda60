"""The same steps in the same order for every request, with Nova's statuses (each was asked of real Nova)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest

from cumulet.db.engine import Database, Tx
from cumulet.db.fair_queue import served
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.operation import Microversion
from tests.web.conftest import ACTION, Answer, Client, W, send
from tests.web.widgets import SERVICES

T = TypeVar("T")


def test_a_request_is_answered_with_its_version_and_ids(client: Client) -> None:
    answer = send(client, "GET", f"{W}/w1")
    assert answer.status == 200
    assert answer.json == {"widget": {"id": "w1", "shape": "old"}}
    assert answer.header("openstack-api-version") == "compute 2.1"
    assert answer.header("x-openstack-nova-api-version") == "2.1"
    assert answer.all("vary") == ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]
    assert answer.header("content-type") == "application/json"
    request_id = answer.header("x-openstack-request-id")
    assert request_id is not None
    assert request_id.startswith("req-")
    assert answer.header("x-compute-request-id") == request_id


def test_a_clients_request_id_is_not_taken_for_ours(client: Client) -> None:
    theirs = "req-11111111-1111-1111-1111-111111111111"
    answer = send(client, "GET", f"{W}/w1", headers={"X-OpenStack-Request-Id": theirs})
    assert answer.header("x-openstack-request-id") != theirs


class Lanes(Database):
    """Records the lane of each question."""

    def __init__(self) -> None:
        super().__init__("sqlite://", inline=True)
        self.asked: list[str] = []

    async def read_async(self, fn: Callable[[Tx], T]) -> T:
        self.asked.append(served.get())
        return await super().read_async(fn)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_what_strangers_ask_is_not_taken_for_the_clouds_own_work(cloud: Cloud, path: str) -> None:
    with contextlib.closing(Lanes()) as database:
        client = Client(App(msgspec.structs.replace(cloud, db=database), SERVICES))
        assert send(client, "GET", path, token=None, address="2001:db8::7").status == 200
        assert database.asked == ["address 2001:db8::/64"]


@pytest.mark.parametrize("token", [None, "", "garbage"])
@pytest.mark.parametrize("path", [f"{W}/w1", "/compute/v2.1/no-such-thing", "/compute/v2.1/os-aggregates"])
def test_without_a_live_token_everything_is_401(client: Client, token: str | None, path: str) -> None:
    client.token = token
    answer = send(client, "GET", path)
    assert answer.status == 401
    assert answer.json["error"]["title"] == "Unauthorized"
    assert answer.header("www-authenticate") == 'Keystone uri="https://127.0.0.1:8774/identity"'


def test_identity_headers_of_a_client_mean_nothing(client: Client) -> None:
    forged = {"X-Roles": "admin", "X-User-Id": "root", "X-Project-Id": "a" * 32, "X-Identity-Status": "Confirmed"}
    assert send(client, "GET", f"{W}/w1", token=None, headers=forged).status == 401
    assert send(client, "GET", f"{W}/w1", token="other", headers=forged).status == 404
    assert send(client, "POST", ACTION, {"move": {"host": "h", "block": True}}, headers=forged).status == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/compute/v2.1/nothing"),
        ("GET", f"{W}/"),
        ("GET", f"{W}/w1/more/and/more"),
        ("PUT", W),
        ("HEAD", W),
        ("GET", f"{W}.json"),
        ("GET", "/compute/v2/servers"),
    ],
)
def test_unknown_paths_and_methods_of_compute_are_404(client: Client, method: str, path: str) -> None:
    answer = send(client, method, path)
    assert answer.status == 404


def test_outside_every_service_is_404_without_a_token(client: Client) -> None:
    assert send(client, "GET", "/nowhere", token=None).status == 404


def test_other_services_say_which_methods_are_allowed(client: Client) -> None:
    answer = send(client, "DELETE", "/network/v2.0/pipes")
    assert answer.status == 405
    assert answer.header("allow") == "GET, HEAD, POST"


def test_head_of_other_services_is_get_without_a_body(client: Client) -> None:
    answer = send(client, "HEAD", "/network/v2.0/pipes")
    assert answer.status == 200
    assert answer.body == b""
    assert answer.header("content-length") != "0"


def test_literals_win_over_parameters(client: Client) -> None:
    assert send(client, "GET", f"{W}/detail").json == {"widgets": ["detail"]}


@pytest.mark.parametrize(
    ("header", "value", "served"),
    [
        ("OpenStack-API-Version", "compute 2.51", "2.51"),
        ("OpenStack-API-Version", "compute latest", "2.104"),
        ("OpenStack-API-Version", "placement 1.2, compute 2.60", "2.60"),
        ("OpenStack-API-Version", "placement 1.2", "2.1"),
        ("OpenStack-API-Version", "compute", "2.1"),
        ("OpenStack-API-Version", "2.5", "2.1"),
        ("X-OpenStack-Nova-API-Version", "2.70", "2.70"),
    ],
)
def test_the_microversion_asked_for_is_served(client: Client, header: str, value: str, served: str) -> None:
    answer = send(client, "GET", f"{W}/w1", headers={header: value})
    assert answer.status == 200
    assert answer.header("openstack-api-version") == f"compute {served}"
    shape = "new" if Microversion.parse(served).at_least("2.51") else "old"
    assert answer.json["widget"]["shape"] == shape


@pytest.mark.parametrize("versions", [("compute 2.51", "placement 1.2"), ("placement 1.2", "compute 2.51")])
def test_each_service_may_have_a_version_header_of_its_own(client: Client, versions: tuple[str, str]) -> None:
    named = [("openstack-api-version", version) for version in versions]
    answer = asyncio.run(client.send("GET", f"{W}/w1", repeated=named))
    assert (answer.status, answer.header("openstack-api-version")) == (200, "compute 2.51")


@pytest.mark.parametrize("version", ["2.105", "2.999", "1.5", "3.0"])
def test_a_version_we_have_not_is_406_and_named(client: Client, version: str) -> None:
    client.version = version
    answer = send(client, "GET", f"{W}/w1")
    assert answer.status == 406
    message = f"Version {version} is not supported by the API. Minimum is 2.1 and maximum is 2.104."
    assert answer.json == {"computeFault": {"code": 406, "message": message}}
    assert answer.header("openstack-api-version") == f"compute {version}"


@pytest.mark.parametrize("version", ["foo", "2", "2.01", "2.1.1", "02.1", "-2.1"])
def test_what_is_no_version_is_400(client: Client, version: str) -> None:
    client.version = version
    answer = send(client, "GET", f"{W}/w1")
    assert answer.status == 400
    assert "is of invalid format. Must be of format MajorNum.MinorNum." in answer.message


def test_an_action_of_another_version_is_404(client: Client) -> None:
    assert send(client, "POST", ACTION, {"late": None}).status == 404
    client.version = "2.90"
    answer = send(client, "POST", ACTION, {"late": None})
    assert (answer.status, answer.json) == (202, {"target": "w1", "transaction": False})


@pytest.mark.parametrize("value", [None, {}])
def test_an_action_without_content_takes_null_and_an_empty_object(client: Client, value: object) -> None:
    answer = send(client, "POST", ACTION, {"poke": value})
    assert (answer.status, answer.body) == (200, b"")


def test_the_body_is_checked_before_the_target_is_looked_for(client: Client) -> None:
    assert send(client, "POST", f"{W}/nope/action", {"move": {}}).status == 400
    assert send(client, "POST", f"{W}/nope/action", {"move": {"host": None, "block": True}}).status == 404


def test_another_projects_thing_and_an_unknown_one_answer_the_same_bytes(client: Client) -> None:
    hidden = send(client, "GET", f"{W}/w1", token="other")
    unknown = send(client, "GET", f"{W}/w2", token="member")
    assert hidden.status == unknown.status == 404
    assert hidden.body.replace(b"w1", b"w2") == unknown.body


def test_rules_refuse_with_403_and_name_the_rule(client: Client) -> None:
    answer = send(client, "POST", ACTION, {"move": {"host": None, "block": True}}, token="reader")
    assert answer.json == {"forbidden": {"code": 403, "message": "Policy doesn't allow widgets:move to be performed."}}


def test_a_rule_for_one_attribute_applies_only_if_it_is_given(client: Client) -> None:
    assert send(client, "POST", ACTION, {"move": {"host": None, "block": True}}).status == 202
    refused = send(client, "POST", ACTION, {"move": {"host": "h", "block": True}})
    assert (refused.status, refused.message) == (403, "Policy doesn't allow widgets:move:host to be performed.")
    assert send(client, "POST", ACTION, {"move": {"host": "h", "block": True}}, token="admin").status == 202


def test_a_token_of_the_wrong_scope_is_refused_whatever_its_roles(client: Client) -> None:
    assert send(client, "GET", W, token="system").status == 403


def test_a_handler_may_ask_a_further_rule(client: Client) -> None:
    client.version = "2.51"
    assert send(client, "GET", f"{W}/w1").json["widget"]["host"] is False
    assert send(client, "GET", f"{W}/w1", token="admin").json["widget"]["host"] is True


def test_the_coded_reason_is_told_to_administrators_only(client: Client) -> None:
    answer = send(client, "POST", ACTION, {"move": {"host": "full", "block": True}}, token="admin")
    assert (answer.status, answer.header("x-cumulet-reason")) == (409, "HOST_FULL")
    assert answer.json == {"conflictingRequest": {"code": 409, "message": "The host is full."}}
    assert send(client, "GET", f"{W}/w2").header("x-cumulet-reason") is None


def test_an_unexpected_error_tells_nothing_and_is_logged_with_the_id(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = send(client, "POST", ACTION, {"move": {"host": "boom", "block": True}}, token="admin")
    assert answer.status == 500
    assert b"hunter2" not in answer.body
    assert b"RuntimeError" not in answer.body
    (record,) = [r for r in caplog.records if r.exc_info]
    assert vars(record)["request_id"] == answer.header("x-openstack-request-id")


def test_a_reply_carries_its_headers(client: Client) -> None:
    answer = send(client, "POST", W, {"widget": {"name": "x"}})
    assert (answer.status, answer.json) == (202, {"widget": {"name": "x"}})
    assert answer.header("location") == "https://127.0.0.1:8774/compute/v2.1/widgets/w1"


def test_no_content_has_no_body(client: Client) -> None:
    answer = send(client, "DELETE", f"{W}/w1")
    assert (answer.status, answer.body, answer.header("content-length")) == (204, b"", None)


@pytest.mark.parametrize(
    ("query", "version", "status"),
    [
        ("limit=5", "2.1", 200),
        ("limit=x", "2.1", 400),
        ("limit=-1", "2.1", 400),
        ("limit=1&limit=2", "2.1", 200),
        ("bogus=1", "2.74", 200),
        ("bogus=1", "2.75", 400),
        ("name=%00", "2.1", 400),
        ("name=%ff", "2.1", 400),
    ],
)
def test_query_parameters_are_checked(client: Client, query: str, version: str, status: int) -> None:
    client.version = version
    assert send(client, "GET", f"{W}?{query}").status == status


def test_the_last_of_a_repeated_parameter_counts(client: Client) -> None:
    assert send(client, "GET", f"{W}?limit=1&limit=2").json["limit"] == 2


def test_percent_encoded_segments_stay_one_segment(client: Client) -> None:
    answer = send(client, "GET", f"{W}/a%2Fb")
    assert (answer.status, answer.message) == (404, "Widget a/b could not be found.")


def test_a_public_operation_needs_no_token(client: Client) -> None:
    answer = send(client, "GET", "/compute/v2.1/front", token=None, headers={"user-agent": "a test"})
    assert answer.json == {"user": "", "client": "192.0.2.7", "agent": "a test"}


def test_a_forged_host_header_is_not_repeated(client: Client) -> None:
    answer = send(client, "POST", W, {"widget": {"name": "x"}}, headers={"host": 'evil"><script>'})
    assert answer.header("location") == "https://127.0.0.1:8774/compute/v2.1/widgets/w1"


def test_every_service_has_its_own_error_shape(client: Client) -> None:
    body = {"pipe": {"name": "one too many"}}
    over = send(client, "POST", "/network/v2.0/pipes", body, token="admin")
    assert (over.status, over.json["NeutronError"]["type"]) == (409, "OverQuota")
    refused = send(client, "POST", "/network/v2.0/pipes", body)
    assert refused.json["NeutronError"] == {
        "type": "PolicyNotAuthorized", "message": "rule:create_pipe is disallowed by policy", "detail": ""
    }  # fmt: skip
    compute = send(client, "POST", W, {"widget": {"name": "one too many"}})
    assert compute.json == {"forbidden": {"code": 403, "message": "Quota exceeded for widgets."}}


def test_what_openstack_has_and_we_have_not_is_501_and_named(client: Client) -> None:
    answer = send(client, "GET", "/compute/v2.1/os-aggregates")
    assert answer.status == 501
    assert "GET /os-aggregates" in answer.json["notImplemented"]["message"]
    action = send(client, "POST", "/compute/v2.1/servers/x/action", {"rescue": {}})
    assert action.status == 501
    assert "rescue" in action.message
    assert send(client, "GET", "/compute/v2.1/os-fping").status == 410


def test_health_is_the_databases(client: Client, cloud: Cloud) -> None:
    assert send(client, "GET", "/healthz", token=None).json == {"status": "ok"}


def test_metrics_are_for_administrators_and_a_credential_of_their_own_wherever_they_come_from(cloud: Cloud) -> None:
    client = Client(App(cloud, SERVICES, scraper_token="scraper"))
    send(client, "GET", f"{W}/w1")
    for address in ("127.0.0.1", "::1", "192.0.2.7"):

        def metrics(token: str | None = None, shown: str = "", address: str = address) -> Answer:
            headers = {"authorization": shown} if shown else {}
            return send(client, "GET", "/metrics", token=token, headers=headers, address=address)

        assert metrics().status == 401
        assert metrics("member").status == 403
        for wrong in ("Bearer", "Bearer ", "Bearer scraper2", "Basic scraper", "scraper"):
            assert metrics(shown=wrong).status == 401
        for answer in (metrics("admin"), metrics(shown="Bearer scraper")):
            assert answer.status == 200
            assert b'cumulet_http_requests_total{method="GET",service="compute",status="200"} 1.0' in answer.body
    assert send(client, "GET", f"{W}/w1", token=None, headers={"authorization": "Bearer scraper"}).status == 401


def test_without_a_credential_for_it_none_opens_metrics(client: Client) -> None:
    for shown in ("Bearer", "Bearer None", "Bearer "):
        assert send(client, "GET", "/metrics", token=None, headers={"authorization": shown}).status == 401


@pytest.mark.parametrize(
    "name", ["x-auth-token", "x-subject-token", "host", "authorization", "content-type", "content-length"]
)
@pytest.mark.parametrize("path", [f"{W}/w1", "/", "/metrics", "/nowhere"])
def test_a_header_that_says_who_asks_or_how_to_read_is_given_once(client: Client, name: str, path: str) -> None:
    for first, second in (("admin", "member"), ("member", "member"), ("", "member")):
        twice = asyncio.run(client.send("GET", path, repeated=[(name, first), (name, second)]))
        assert twice.status == 400
        assert f"The header {name} may be given only once" in twice.body.decode()


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("localhost:8774", "localhost:8774"),
        ("127.0.0.1:1234", "127.0.0.1:1234"),
        ("[::1]:8774", "[::1]:8774"),
        ("evil.example", "127.0.0.1:8774"),
        ("evil.example:8774", "127.0.0.1:8774"),
        ("localhost.evil.example", "127.0.0.1:8774"),
        ("127.0.0.1@evil.example", "127.0.0.1:8774"),
        ("192.0.2.1", "127.0.0.1:8774"),
        ("", "127.0.0.1:8774"),
    ],
)
def test_links_begin_with_an_address_of_ours_whatever_the_host_header_says(
    client: Client, host: str, reached: str
) -> None:
    text = send(client, "GET", "/compute", token=None, headers={"host": host}).body.decode()
    assert f"https://{reached}/compute" in text
    assert "evil" not in text


def test_a_public_url_that_is_set_is_where_all_links_lead(cloud: Cloud) -> None:
    named = msgspec.structs.replace(cloud.settings, public_url="https://cloud.example")
    client = Client(App(msgspec.structs.replace(cloud, settings=named), SERVICES))
    for host in ("localhost:8774", "evil.example"):
        text = send(client, "GET", "/compute", token=None, headers={"host": host}).body.decode()
        assert "https://cloud.example/compute" in text
        assert "evil" not in text
        assert "localhost" not in text


def test_a_name_with_a_nul_names_nothing(client: Client) -> None:
    answer = send(client, "GET", f"{W}/w1%00")
    assert (answer.status, answer.header("openstack-api-version")) == (404, "compute 2.1")
