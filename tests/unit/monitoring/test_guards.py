"""Who may ask, and who may not."""

import socket

import pytest

from pixaris_sync.monitoring.guards import HEADERS, Names, refusal

_OWN = {"Host": "127.0.0.1:9465"}
_ALL = "0.0.0.0"  # noqa: S104 - what is tested


@pytest.mark.parametrize(
    ("named", "bound", "own", "foreign"),
    [
        (
            "127.0.0.1",
            "127.0.0.1",
            ["127.0.0.1:9465", "127.0.0.1", "localhost:9465", "LOCALHOST", "localhost.", "[::1]:80"],
            ["", "evil.example", "10.0.0.1", _ALL, "localhost.evil.example", "127.0.0.1.evil.example"],
        ),
        ("::1", "::1", ["[::1]:9465", "localhost"], ["[::2]", "evil.example", "[::1", "::1]"]),
        ("gpu1", "192.0.2.7", ["gpu1:9465", "GPU1", "192.0.2.7"], ["192.0.2.8", "localhost", "gpu1.evil"]),
        (_ALL, _ALL, ["192.0.2.8:1", "localhost", "[2001:db8::1]"], ["evil.example", "a@b", "b:c"]),
    ],
)
def test_a_server_knows_its_names(named: str, bound: str, own: list[str], foreign: list[str]) -> None:
    """Goal: no foreign name leads here. Method: one address, of which kind it is, and all of them."""
    names = Names(named, bound)
    assert [host for host in own if not names.include(host)] == []
    assert [host for host in foreign if names.include(host)] == []
    assert names.include(socket.gethostname())


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, "/", None),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, "/", None),
        ({"Sec-Fetch-Site": "same-origin"}, "/metrics", None),
        ({"Origin": "http://127.0.0.1:9465"}, "/", None),
        ({"Host": "evil.example"}, "/", 421),
        ({"Origin": "http://evil.example"}, "/", 403),
        ({"Origin": "https://127.0.0.1:9465"}, "/", 403),
        ({"Origin": "http://127.0.0.1:8080"}, "/", 403),
        ({"Origin": "null"}, "/", 403),
        ({"Sec-Fetch-Site": "cross-site"}, "/", 403),
        ({"Sec-Fetch-Site": "same-site"}, "/healthz", 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, "/", 403),
        (
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
            "/",
            403,
        ),
        (
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
            "/",
            None,
        ),
        (
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
            "/metrics",
            403,
        ),
    ],
)
def test_pages_of_others_are_refused(headers: dict[str, str], path: str, status: int | None) -> None:
    """Goal: who visits an evil page shows it nothing, and links work. Method: what browsers send."""
    refused = refusal({**_OWN, **headers}, path, Names("127.0.0.1", "127.0.0.1"))
    assert (refused and refused[0]) == status


def test_nothing_foreign_and_nothing_inline_may_run() -> None:
    """Goal: what slips through is harmless. Method: the policy, directive by directive."""
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    own = {"script-src", "style-src", "img-src", "connect-src"}
    assert {name for name, value in policy.items() if value == "'self'"} == own
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
