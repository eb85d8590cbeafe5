"""A message, or its time, and the secrets shared with its receiver to what proves who wrote it.

Sources: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md,
https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot (signature verification),
https://open.dingtalk.com/document/orgapp/customize-robot-security-settings (additional signature).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

_PREFIX: Final = "whsec_"
_SHORTEST_KEY_BYTES: Final = 24
_LONGEST_KEY_BYTES: Final = 64


class Secret:
    """A text that no repr, log line or message shows; `reveal` gives it to the code that needs it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)


def signing_key(secret: Secret) -> bytes:
    """The key in a signing secret: `whsec_` and the base64 of 24 to 64 bytes.

    Raises ValueError, which says what is wrong without a part of the secret.
    """
    text = secret.reveal()
    if not text.startswith(_PREFIX):
        raise ValueError(f"a signing secret begins with {_PREFIX}")
    encoded = text.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"a signing secret is base64 after {_PREFIX}") from error
    if not _SHORTEST_KEY_BYTES <= len(key) <= _LONGEST_KEY_BYTES:
        raise ValueError(f"a signing secret holds {_SHORTEST_KEY_BYTES} to {_LONGEST_KEY_BYTES} bytes, not {len(key)}")
    return key


def read_secrets(text: str) -> tuple[Secret, ...]:
    """The signing secrets in a text, one a line; empty lines are skipped. All of them sign, so that a receiver can change over."""
    return tuple(Secret(line.strip()) for line in text.splitlines() if line.strip())


def signature_headers(delivery_id: str, time_ms: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """`webhook-id`, `webhook-timestamp` (whole seconds since the epoch) and `webhook-signature`, with one signature per key."""
    timestamp = str(time_ms // 1_000)
    signed = b".".join((delivery_id.encode(), timestamp.encode(), body))
    signatures = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def feishu_signature(secret: Secret, timestamp_s: int) -> str:
    """The `sign` of a Feishu or Lark bot for that second: base64 of the HMAC-SHA256 of nothing, keyed by timestamp and secret."""
    key = f"{timestamp_s}\n{secret.reveal()}".encode()
    return base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()


def dingtalk_signature(secret: Secret, timestamp_ms: int) -> str:
    """The `sign` of a DingTalk robot for that millisecond: base64 of the HMAC-SHA256 of both, keyed by the secret."""
    signed = f"{timestamp_ms}\n{secret.reveal()}".encode()
    return base64.b64encode(hmac.new(secret.reveal().encode(), signed, hashlib.sha256).digest()).decode()
