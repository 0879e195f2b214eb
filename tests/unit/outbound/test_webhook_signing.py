"""Signatures as Standard Webhooks has them."""

from birthmark.outbound.webhook_signature import headers_of, key_of, secret_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_call_is_signed_as_the_published_example_is() -> None:
    headers = headers_of("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [SECRET])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"


def test_while_a_secret_is_exchanged_both_sign() -> None:
    both = headers_of("m", 1, b"x", [SECRET, secret_of(bytes(32))])["webhook-signature"].split()
    assert both == [headers_of("m", 1, b"x", [one])["webhook-signature"] for one in (SECRET, secret_of(bytes(32)))]


def test_a_secret_is_its_key() -> None:
    assert key_of(secret_of(b"k" * 32)) == b"k" * 32
