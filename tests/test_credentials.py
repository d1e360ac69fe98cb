"""Credentials in addresses: in no name, no error, however they are written; what is none stays as it is."""

from __future__ import annotations

import pytest

from edgeseg.credentials import without_credentials
from edgeseg.errors import InputError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:pw@host:554/live", "rtsp://host:554/live"),
        ("RTSPS://user:pw@host/live", "RTSPS://host/live"),
        ("rtsp://user@host/live", "rtsp://host/live"),
        ("rtsp://user:pa@ss/word@host/live", "rtsp://host/live"),
        ("rtsp://us/er:pw@host/live", "rtsp://host/live"),
        ("rtsp://user:1234/5@host/live", "rtsp://host/live"),
        ("rtsp://user:p?ss@host/live?channel=1", "rtsp://host/live?channel=1"),
        ("rtsp://user:p#s?s@host/live", "rtsp://host/live"),
        ("rtsp://user:p@s?s@host/live", "rtsp://host/live"),
        ("rtsp://user:p?a=b@host/live", "rtsp://host/live"),
        ("rtsp://user:p'w@host/live", "rtsp://host/live"),
        ("rtsp://user:pw@[fe80::1]:554/live", "rtsp://[fe80::1]:554/live"),
        ("http://host/live?token=abc", "http://host/live?token=***"),
        ("http://host:80/live?token=a@b&channel=2", "http://host:80/live?token=***&channel=2"),
        ("http://user:pw@host/live?X-Amz-Signature=abc;sig=d", "http://host/live?X-Amz-Signature=***;sig=***"),
        ("http://host/live?0123abcdef", "http://host/live?***"),
        ("http://host/live#access_token=abc", "http://host/live#access_token=***"),
        ("rtsp://host/user=admin&password=a&channel=1", "rtsp://host/user=***"),
        ("rtsp://host/user=admin_password=a_channel=1", "rtsp://host/user=***"),
        ("rtmp:/user:pw@host/live", "rtmp:/host/live"),
    ],
)
def test_addresses(address: str, shown: str) -> None:
    assert without_credentials(address) == shown
    assert without_credentials(shown) == shown
    assert without_credentials(f"stream '{address}' is gone") == f"stream '{shown}' is gone"


@pytest.mark.parametrize(
    ("pipeline", "shown"),
    [
        ("rtspsrc location=rtsp://u:p@h/x ! appsink", "rtspsrc location=rtsp://h/x ! appsink"),
        ('rtspsrc location="rtsp://u:p w@h/x" ! appsink', 'rtspsrc location="rtsp://h/x" ! appsink'),
        ("rtspsrc user-id=me user-pw=pw ! appsink", "rtspsrc user-id=*** user-pw=*** ! appsink"),
        (r'rtspsrc user-pw = "a \" b" ! appsink', "rtspsrc user-pw = *** ! appsink"),
        ("rtspsrc user-pw=(string)'a b' ! appsink", "rtspsrc user-pw=*** ! appsink"),
        (r"rtspsrc user-pw=a\ b&c=d;e ! appsink", "rtspsrc user-pw=*** ! appsink"),
        ("rtspsrc user-pw='ab ! appsink", "rtspsrc user-pw=*** ! appsink"),
        ("souphttpsrc proxy-id=a proxy-pw=b ! appsink", "souphttpsrc proxy-id=*** proxy-pw=*** ! appsink"),
        ('souphttpsrc extra-headers="a,Authorization=b" ! x', "souphttpsrc extra-headers=*** ! x"),
        (
            "srtsrc uri=srt://h:1?passphrase=abc passphrase=d ! x",
            "srtsrc uri=srt://h:1?passphrase=*** passphrase=*** ! x",
        ),
    ],
)
def test_gstreamer_text(pipeline: str, shown: str) -> None:
    assert without_credentials(pipeline) == shown
    assert without_credentials(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://host:554/Streaming/Channels/101",
        "http://host/cam/realmonitor?channel=1&subtype=0",
        "http://host/pictures/icon@2x.mjpg",
        "pictures/me@home.png",
        r"C:\pictures\me@home.png",
        "C:/pictures/a:b@home.png",
        "v4l2src device=/dev/video0 ! video/x-raw,width=640 ! appsink",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert without_credentials(text) == text


def test_errors_quote_no_password() -> None:
    error = InputError("'https://u:p@h/a.png' cannot be read with --skip-pass=b; see http://h/?key=c")
    assert str(error) == "'https://h/a.png' cannot be read with --skip-pass=b; see http://h/?key=***"
