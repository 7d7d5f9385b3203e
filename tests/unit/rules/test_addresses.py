"""Where content may go that an answer names an address for."""

import pytest

from pixaris_sync.rules.addresses import leads_elsewhere

GOOGLE = "https://storage.googleapis.com/upload/storage/v1/b/bucket/o"


@pytest.mark.parametrize(
    ("address", "asked", "elsewhere"),
    [
        (f"{GOOGLE}?upload_id=1", GOOGLE, False),
        ("https://www.googleapis.com/upload?upload_id=1", GOOGLE, False),
        ("https://storage.googleapis.com:443/upload?upload_id=1", GOOGLE, False),
        ("https://storage.googleapis.com/upload", "http://10.0.0.1:8080/upload", False),
        ("http://127.0.0.1:9023/upload?upload_id=1", "http://127.0.0.1:9023/upload", False),
        ("http://storage.googleapis.com/upload?upload_id=1", GOOGLE, True),
        ("https://storage.googleapis.com.example/upload", GOOGLE, True),
        ("https://storagegoogleapis.com/upload", GOOGLE, True),
        ("https://googleapis.com@example.com/upload", GOOGLE, True),
        ("http://127.0.0.1:9024/upload", "http://127.0.0.1:9023/upload", True),
        ("/upload?upload_id=1", GOOGLE, True),
        ("", GOOGLE, True),
    ],
)
def test_only_who_was_asked_and_google_gets_content(address: str, asked: str, *, elsewhere: bool) -> None:
    """Goal: an answer sends content to no stranger. Method: addresses that are alike, and that are not."""
    assert leads_elsewhere(address, asked) == elsewhere
