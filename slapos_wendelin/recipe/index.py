# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Source archives from the configured Python index.

``pip download`` cannot be used for them: it runs the setup of the unpatched source.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename
from packaging.version import InvalidVersion, Version
from requests.utils import get_netrc_auth
from zc.buildout.easy_install import default_index_url

from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.recipe.program import NETWORK

#: Seconds without any byte after which a request is given up.
_TIMEOUT = 30

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = {"Accept": f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"}


def index_url() -> str:
    """Return the index that uv or pip are configured to use, else buildout's default."""
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if os.environ.get(variable):
            return os.environ[variable]
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    return configured.stdout.strip() or default_index_url


def parse_pin(requirement: str) -> tuple[str, Version]:
    """Return name and version of ``NAME==VERSION``.

    :raises ProfileError: the requirement is of another form.
    """
    try:
        parsed = Requirement(requirement)
        (pin,) = parsed.specifier
        if pin.operator == "==" and not parsed.extras and not parsed.marker:
            return canonicalize_name(parsed.name), Version(pin.version)
    except (InvalidRequirement, InvalidVersion, ValueError):
        pass
    raise ProfileError(f"the requirement {requirement!r} is not of the form NAME==VERSION")


def fetch_source_archive(
    requirement: str, sha256: str, download_cache: Path | None, *, offline: bool
) -> bytes:
    """Return the source archive of a release.

    :param requirement: ``NAME==VERSION``.
    :param sha256: its checksum; other bytes are refused.
    :param download_cache: folder looked into first, and to which a download is added.
    :raises ProfileError: it is neither there nor on the index, or has another checksum.
    """
    name, version = parse_pin(requirement)
    if download_cache:
        for folder in (download_cache, download_cache / "dist"):
            for path in sorted(folder.glob("*.tar.gz")):
                if _is_release(path.name, name, version):
                    return _checked(path.read_bytes(), sha256, str(path))
    index = index_url()
    if offline and not index.startswith("file:"):
        raise ProfileError(
            f"{requirement} is not in the download-cache {download_cache or '(not set)'}, and "
            "offline mode forbids to fetch it",
            NETWORK,
        )
    filename, url = _find(name, version, index)
    content = _checked(_open(url)[0], sha256, without_password(url))
    if download_cache:
        download_cache.mkdir(parents=True, exist_ok=True)
        temporary = download_cache / f".{filename}.{os.getpid()}"
        temporary.write_bytes(content)
        temporary.replace(download_cache / filename)
    return content


def _is_release(filename: str, name: str, version: Version) -> bool:
    try:
        return parse_sdist_filename(filename) == (name, version)
    except InvalidSdistFilename:
        return False


def _checked(content: bytes, sha256: str, place: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise ProfileError(
            f"{place} has sha256 {found}, not {sha256}",
            "do not build from it: remove it when it is a damaged copy, or correct the profile",
        )
    return content


def _find(name: str, version: Version, index: str) -> tuple[str, str]:
    """Return file name and URL of a release's source archive."""
    page = f"{index.rstrip('/')}/{name}/"
    content, content_type = _open(page)
    for filename, url in _links(content, content_type):
        if _is_release(filename, name, version) and filename.endswith(".tar.gz"):
            return filename, urljoin(page, url)
    raise ProfileError(
        f"{without_password(page)} lists no source archive of {name} {version}",
        "correct the version, or name an index that has it in UV_DEFAULT_INDEX",
    )


def _links(content: bytes, content_type: str) -> list[tuple[str, str]]:
    """Return file names and URLs of a project's page, in either form of the simple API."""
    if content_type == _JSON:
        return [(file["filename"], file["url"]) for file in json.loads(content)["files"]]
    parser = _Anchors()
    parser.feed(content.decode())
    return [(unquote(urlsplit(link).path.rpartition("/")[2]), link) for link in parser.links]


class _Anchors(HTMLParser):
    """Collects what the anchors of a page link to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the link of an anchor."""
        if tag == "a":
            self.links += [urldefrag(value).url for key, value in attrs if key == "href" and value]


def _open(url: str) -> tuple[bytes, str]:
    """Return content and type of what a URL names."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https", "file"}:
        raise ProfileError(
            f"the Python index {without_password(url)} is no http, https or file URL"
        )
    if parts.scheme == "file" and parts.path.endswith("/"):
        url += "index.html"
    try:
        request = urllib.request.Request(without_password(url), headers=_ACCEPT)  # noqa: S310
        if login := _login(url):
            token = base64.b64encode(":".join(login).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            return answer.read(), answer.headers.get_content_type()
    except (URLError, OSError) as error:
        raise ProfileError(f"cannot fetch {without_password(url)}: {error}", NETWORK) from error


def _login(url: str) -> tuple[str, str] | None:
    """Return user and password for a URL: from itself, else from ~/.netrc."""
    parts = urlsplit(url)
    if parts.username:
        return unquote(parts.username), unquote(parts.password or "")
    return get_netrc_auth(url)


def without_password(url: str) -> str:
    """Return a URL without its user and password, for messages."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
