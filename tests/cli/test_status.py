"""`cumulet status`: a running cloud at a glance."""

from __future__ import annotations

from cumulet.cli.client import credentials_of, https, log_in
from cumulet.testing import cloud as simulated_cloud
from tests.links import silent

from .conftest import Up, cumulet


def test_it_shows_hosts_servers_and_operations(running: Up) -> None:
    credentials, authority = credentials_of(running.clouds_file, "demo")
    member = log_in(https(running.url, authority), "demo", credentials)
    flavor = member.get("/compute/v2.1/flavors")["flavors"][0]["id"]
    image = member.get("/image/v2/images")["images"][0]["id"]
    server = {"name": "[red]shown[/red]", "flavorRef": flavor, "imageRef": image, "networks": "none"}
    created = member.must("POST", "/compute/v2.1/servers", {"server": server})["server"]["id"]
    seen = cumulet("status", "--clouds-file", str(running.clouds_file))
    assert seen.status == 0, seen.err
    assert "host1" in seen.out
    assert "host2" in seen.out
    assert "Servers (1)" in seen.out
    assert created in seen.out
    assert "Operations under way" in seen.out


def test_a_disabled_host_shows_with_its_reason(running: Up) -> None:
    credentials, authority = credentials_of(running.clouds_file, "cumulet")
    admin = log_in(https(running.url, authority), "admin", credentials)
    services = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
    path = f"/compute/v2.1/os-services/{next(one['id'] for one in services if one['host'] == 'host2')}"
    admin.must("PUT", path, {"status": "disabled", "disabled_reason": "new disk"})
    assert "new disk" in cumulet("status", "--clouds-file", str(running.clouds_file)).out
    admin.must("PUT", path, {"status": "enabled"})


def test_what_was_found_and_done_shows_and_a_host_that_is_down_is_an_error() -> None:
    with simulated_cloud() as cloud:
        calm = cumulet("status", "--clouds-file", str(cloud.clouds_yaml))
        assert (calm.status, "Found and mended (0)" in calm.out) == (0, True)
        with silent(cloud, "host2"):
            cloud.clock.advance(2 * cloud.embedded.settings.host_silent_seconds)
            cloud.reconcile()
            seen = cumulet("status", "--clouds-file", str(cloud.clouds_yaml))
    assert seen.status == 1, seen.err
    _, title, section = seen.out.partition("Found and mended (1)")
    assert title, seen.out
    for word in ("hosts: host-silent", "host2", "marked down"):
        assert word in section


def test_a_member_may_not_see_it(running: Up) -> None:
    seen = cumulet("status", "--clouds-file", str(running.clouds_file), "--cloud", "demo")
    assert seen.status == 1
    assert "403" in seen.err
    assert "Traceback" not in seen.err
