# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys (Ed25519) that say who has built a compiled part."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from slapos_wendelin.compiled.errors import CacheError

#: Says what is signed, so that a signature means nothing elsewhere.
_CONTEXT = b"slapos_wendelin compiled part\n"


def make_key(path: Path) -> str:
    """Write a new private key, which nobody else may read; return its public key as text.

    :raises CacheError: there is something of that name, or the folder cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError:
        raise CacheError(
            f"{path} is there already", "name another file: a key that is lost is lost"
        ) from None
    except OSError as error:
        raise CacheError(f"{path} cannot be written: {error.strerror}") from error
    return public_text(key.public_key())


def public_text(key: Ed25519PublicKey) -> str:
    """Return a public key as one word."""
    return "ed25519:" + base64.b64encode(key.public_bytes_raw()).decode()


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key; raises CacheError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise CacheError(
            f"the key {path} cannot be read: {error.strerror}", "make one: slapos cache key FILE"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CacheError(f"{path} holds no private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CacheError(f"{path} holds a key of another kind than Ed25519")
    return key


def read_public_keys(places: Iterable[str]) -> list[Ed25519PublicKey]:
    """Read the keys that are trusted.

    :param places: each a word ``ed25519:...`` or a file with such words, one a line.
    :raises CacheError: one of them is no key, or there is none.
    """
    keys = []
    for place in places:
        words = [place]
        if not place.startswith("ed25519:"):
            try:
                lines = Path(place).read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise CacheError(
                    f"the trusted keys {place} cannot be read: {error}",
                    "name a public key, ed25519:..., or a file with one a line",
                ) from error
            words = [line.split("#")[0].strip() for line in lines]
        keys += [_public_key(word, place) for word in words if word]
    if not keys:
        raise CacheError(
            "no key is trusted, so nothing can be taken from the cache",
            "name the public key that slapos cache key has printed",
        )
    return keys


def _public_key(word: str, place: str) -> Ed25519PublicKey:
    """Read a public key from a word; raises CacheError."""
    kind, _, text = word.partition(":")
    try:
        # Without the kind there is no text, which is no key either.
        return Ed25519PublicKey.from_public_bytes(
            base64.b64decode(text if kind == "ed25519" else "", validate=True)
        )
    except ValueError as error:
        raise CacheError(
            f"{word!r} of {place} is no public key", "it looks like ed25519: and 44 characters"
        ) from error


def sign(key: Ed25519PrivateKey, content: bytes) -> str:
    """Return the signature of what a part is, as text."""
    return base64.b64encode(key.sign(_CONTEXT + content)).decode()


def is_signed(keys: Iterable[Ed25519PublicKey], content: bytes, signature: str) -> bool:
    """Whether one of the trusted keys has signed what a part is."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:
        return False
    for key in keys:
        try:
            key.verify(raw, _CONTEXT + content)
        except InvalidSignature:
            continue
        return True
    return False
