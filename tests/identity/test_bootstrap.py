"""What a new cloud has, and what clouds.yaml keeps."""

from __future__ import annotations

from pathlib import Path

import yaml

from cumulet.identity import bootstrap
from tests.api.identity.place import Place, password_auth, project


def test_a_new_cloud_has_its_users_projects_and_roles(tmp_path: Path) -> None:
    place = Place(tmp_path)
    admin = place.admin()
    for collection, found in (
        ("domains", ["Default"]),
        ("projects", ["admin", "demo", "service"]),
        ("users", ["admin", "demo"]),
        ("roles", ["admin", "manager", "member", "reader", "service"]),
    ):
        assert [thing["name"] for thing in admin.get(f"/{collection}").json()[collection]] == found
    demo = place.login("demo", scope=project("demo")).body
    assert [role["name"] for role in demo["roles"]] == ["member", "reader"]
    assert place.login("admin", scope={"system": {"all": True}}).body["roles"]
    assert len(set(place.passwords.by_user.values())) == 2
    assert min(len(password) for password in place.passwords.by_user.values()) >= 32
    place.close()


def test_clouds_yaml_is_for_the_owner_only_and_leaves_other_clouds_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "clouds.yaml"
    path.parent.mkdir()
    path.write_text("clouds: {mine: {auth: {auth_url: http://elsewhere}}}\n")
    path.chmod(0o644)
    passwords = {"admin": "a", "demo": "d"}
    bootstrap.write_clouds_yaml(
        path, auth_url="https://127.0.0.1:1/identity", cacert=tmp_path / "ca.pem", passwords=passwords, region="R"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["clouds.yaml"]
    clouds = yaml.safe_load(path.read_text())["clouds"]
    assert clouds["mine"] == {"auth": {"auth_url": "http://elsewhere"}}
    assert clouds["cumulet"] == {
        "auth": {
            "auth_url": "https://127.0.0.1:1/identity",
            "username": "admin",
            "password": "a",
            "project_name": "admin",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
        "region_name": "R",
        "interface": "public",
        "identity_api_version": 3,
        "cacert": str(tmp_path / "ca.pem"),
    }
    assert clouds["demo"]["auth"]["username"] == "demo"
    assert bootstrap.read_passwords(path) == passwords


def test_passwords_are_kept_in_clouds_yaml_and_replaced_where_it_is_lost(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"
    clouds = tmp_path / "clouds.yaml"
    first = Place(tmp_path, url)
    assert first.passwords.origin == "made"
    bootstrap.write_clouds_yaml(
        clouds, auth_url="https://x/", cacert=None, passwords=first.passwords.by_user, region="RegionOne"
    )
    first.close()
    second = Place(tmp_path, url)
    assert (second.passwords.origin, second.passwords.by_user) == ("kept", first.passwords.by_user)
    token = second.admin()
    second.close()
    clouds.write_text("clouds: {cumulet: {}}")
    third = Place(tmp_path, url)
    third.clock.uuid()
    assert third.passwords.origin == "replaced"
    assert third.admin().still_counts()
    assert third.nobody.request("GET", "/auth/projects", headers={"X-Auth-Token": str(token.token)}).status_code == 401
    third.close()


def test_replaced_passwords_end_the_old_ones(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"
    first = Place(tmp_path, url)
    first.close()
    second = Place(tmp_path, url, clock_seed=8)
    assert second.passwords.by_user["demo"] != first.passwords.by_user["demo"]
    assert second.authenticate(password_auth("demo", first.passwords.by_user["demo"])).status_code == 401
    assert second.authenticate(password_auth("demo", second.passwords.by_user["demo"])).status_code == 201
    second.close()
