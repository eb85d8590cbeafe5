"""Signatures as Standard Webhooks lays them down, checked by its own library."""

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from alerts.signature import Secret, read_secrets, signature_headers, signing_key


def a_secret(length=32, fill=b"k"):
    return "whsec_" + base64.b64encode(fill * length).decode()


def test_the_example_of_the_specification():
    """From the libraries' shared test: this message under this secret has this signature."""
    key = signing_key(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    headers = signature_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330_000, b'{"test": 2432232314}', [key])
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200), st.integers(24, 64), st.integers(0, 999))
def test_the_reference_library_accepts_what_we_sign(body, length, fraction_ms):
    secret = a_secret(length)
    now_ms = int(time.time()) * 1_000 + fraction_ms
    headers = signature_headers("msg_a", now_ms, body.encode(), [signing_key(Secret(secret))])
    Webhook(secret).verify(body.encode(), headers, json_parse=False)


def test_every_secret_signs_so_that_a_receiver_can_change_over():
    old, new, strange = a_secret(fill=b"o"), a_secret(fill=b"n"), a_secret(fill=b"s")
    keys = [signing_key(secret) for secret in read_secrets(f"{new}\n\n  {old} \n")]
    headers = signature_headers("msg_a", time.time_ns() // 1_000_000, b"{}", keys)
    assert headers["webhook-signature"].count("v1,") == 2
    Webhook(old).verify(b"{}", headers)
    Webhook(new).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(strange).verify(b"{}", headers)


@pytest.mark.parametrize("length", [24, 64])
def test_a_key_of_the_permitted_lengths_is_taken(length):
    assert signing_key(Secret(a_secret(length))) == b"k" * length


def test_missing_padding_is_forgiven():
    assert signing_key(Secret(a_secret(25).rstrip("="))) == b"k" * 25


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2hunter2hunter2hunter2",
        "whsec_",
        "whsec_!!!!",
        "whsec_a b c d",
        a_secret(23),
        a_secret(65),
        a_secret().replace("a", "!"),
        "whsec_é",
    ],
)
def test_what_is_no_signing_secret_is_refused_without_being_quoted(text):
    with pytest.raises(ValueError, match="a signing secret") as caught:
        signing_key(Secret(text))
    rest = text.removeprefix("whsec_")
    assert not rest or rest not in str(caught.value)


def test_a_secret_shows_itself_only_when_asked():
    secret = Secret("whsec_hush")
    assert "hush" not in f"{secret} {secret!r} {[secret]} "
    assert secret.reveal() == "whsec_hush"
    assert secret == Secret("whsec_hush")
    assert secret != Secret("whsec_other")
    assert secret != "whsec_hush"
    assert len({secret, Secret("whsec_hush")}) == 1
