# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Flask application: blueprints, limits, and how errors are told."""

from __future__ import annotations

import json
import logging
import time

from flask import Flask, Response, g, jsonify, request
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.http import HTTP_STATUS_CODES

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master import (
    access_api,
    api,
    catalog,
    cluster_api,
    endings,
    hateoas,
    json_rpc,
    metrics_api,
    operations_api,
    plan_api,
    protocol,
    registration,
    registry_api,
)
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.callers import Callers, identify
from slapos_wendelin.master.context import ANONYMOUS, EXTENSION, VIEWER, Context
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import LengthRequiredError, MasterError, TooLargeError
from slapos_wendelin.master.fleet_cache import FleetCache
from slapos_wendelin.master.logs import Event
from slapos_wendelin.master.masking import masked
from slapos_wendelin.master.metrics import Metrics
from slapos_wendelin.master.presence import LOST_AFTER, Presence
from slapos_wendelin.master.rights import check_rights

#: The largest body that is read, in bytes.
BODY_LIMIT = 4 * 1024 * 1024

#: How much of a body that is too large is thrown away before the answer, in bytes: a client that is
#: still sending when the connection closes does not see the answer.
_DISCARD_LIMIT = 32 * 1024 * 1024

#: The longest reason phrase, in characters.
_REASON_LIMIT = 1500

_log = logging.getLogger(__name__)


def create_application(
    database: Database,
    authority: Authority | None = None,
    *,
    is_plain: bool = False,
    lost_after: float = LOST_AFTER,
) -> Flask:
    """Return the application that serves a database.

    :param authority: what signs certificates.
    :param is_plain: whether requests come in clear on loopback, where every caller is an operator.
    :param lost_after: how long a computer may be silent before it counts as lost, in seconds.
    """
    application = Flask(__name__, static_folder=None)
    application.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    application.config["MAX_FORM_MEMORY_SIZE"] = BODY_LIMIT
    presence = Presence(database, lost_after)
    fleet = FleetCache(presence.is_silent, lost_after)
    metrics = Metrics(database, presence)
    fleet.observe = metrics.placed
    application.extensions[EXTENSION] = Context(
        database, presence, fleet, metrics, Callers(database), authority, is_plain
    )
    if authority is not None:
        endings.follow(database, authority)
    application.before_request(_begin)
    application.before_request(identify)
    application.before_request(_read_body)
    application.before_request(check_rights)
    application.after_request(_hide_secrets)
    application.after_request(_log_request)
    application.after_request(metrics.answered)
    for module in (
        protocol,
        json_rpc,
        hateoas,
        api,
        registry_api,
        access_api,
        cluster_api,
        registration,
        catalog,
        plan_api,
        metrics_api,
        operations_api,
    ):
        application.register_blueprint(module.blueprint)
    application.register_error_handler(WendelinError, _tell_refusal)
    application.register_error_handler(HTTPException, _tell_http_error)
    application.register_error_handler(OperationalError, _tell_database_error)
    application.register_error_handler(Exception, _tell_failure)
    return application


def _begin() -> None:
    """Note when the request began."""
    g.began = time.monotonic()


def _read_body() -> None:
    """Read the body, but a stranger's; refuse one that is too large.

    It is kept as it came: rights look into forms, and a repeated request is known by its body.
    """
    _check_size()
    if g.caller.kind != ANONYMOUS:
        request.get_data()


def _check_size() -> None:
    """Refuse a body that is too large, after reading what is likely to be on its way already."""
    if "Transfer-Encoding" in request.headers:
        raise LengthRequiredError("the body comes in chunks", "send it whole with Content-Length")
    length = request.content_length or 0
    if length <= BODY_LIMIT:
        return
    left = 0 if g.caller.kind == ANONYMOUS else min(length, _DISCARD_LIMIT)
    stream = request.environ["wsgi.input"]
    while left > 0 and (piece := stream.read(min(left, 65536))):
        left -= len(piece)
    raise TooLargeError(
        f"the body has {length} bytes", f"send {BODY_LIMIT} bytes ({BODY_LIMIT >> 20} MiB) at most"
    )


def _hide_secrets(response: Response) -> Response:
    """Hide from viewers the secrets among parameters and what instances publish."""
    caller = g.get("caller")
    if caller is not None and caller.kind == VIEWER and request.path.startswith("/v1/"):
        document = response.get_json(silent=True)
        if document is not None:
            response.set_data(json.dumps(masked(document)))
    return response


def _log_request(response: Response) -> Response:
    """Log one line for each request; a failed one at a level that is shown by default."""
    level = logging.DEBUG if response.status_code < 400 else logging.WARNING  # noqa: PLR2004
    if not _log.isEnabledFor(level):
        return response
    event = Event(
        "request",
        method=request.method,
        path=request.path,
        endpoint=request.endpoint,
        status=response.status_code,
        milliseconds=round(1000 * (time.monotonic() - g.get("began", time.monotonic())), 1),
        caller=g.get("caller"),
        address=request.remote_addr,
        number=g.get("number"),
    )
    _log.log(level, event)
    return response


def _tell_refusal(error: WendelinError) -> Response:
    """Answer with an error's own status."""
    status = error.status if isinstance(error, MasterError) else 500
    if json_rpc.is_method(request.path):
        status = json_rpc.refusal_status(error, status)
    _log.warning("refused path=%s status=%d error=%s", request.path, status, error)
    return _answer(status, error.message, error.remedy)


def _tell_http_error(error: HTTPException) -> Response:
    """Answer with the status that Flask or Werkzeug chose."""
    if isinstance(error, RequestEntityTooLarge):
        return _tell_refusal(
            TooLargeError("the body is too large", f"send {BODY_LIMIT >> 20} MiB at most")
        )
    message = error.description or error.name
    if isinstance(error, NotFound):
        message = f"the master has nothing at {request.path}"
    answer = _answer(error.code or 500, message, "")
    for name, value in error.get_headers():
        if name == "Allow":
            answer.headers[name] = value
    return answer


def _tell_database_error(error: OperationalError) -> Response:
    """Answer that the database cannot be written or read; the transaction was rolled back."""
    _log.error("database failed path=%s error=%s", request.path, error.orig)
    return _answer(
        503,
        f"the master's database fails: {error.orig}",
        "nothing was changed; free space on the disk of the database, or look at its server, and"
        " send the request again",
    )


def _tell_failure(error: Exception) -> Response:
    """Answer that the master has a fault; what it is goes to the log only."""
    _log.error("fault path=%s", request.path, exc_info=error)
    return _answer(500, "the master failed to answer this request", "see the master's log")


def _answer(status: int, message: str, remedy: str) -> Response:
    """Return an error as JSON below /v1 and of a JSON-RPC method, else as text and reason phrase.

    The reason phrase is all that the slap library shows of an error.
    """
    if request.path.startswith("/v1/"):
        response = jsonify({"error": message, "remedy": remedy})
        response.status_code = status
        return response
    whole = f"{message} ({remedy})" if remedy else message
    if json_rpc.is_method(request.path):
        return json_rpc.refusal(status, whole)
    response = Response(whole, mimetype="text/plain")
    reason = " ".join(whole.encode("ascii", "replace").decode().split())
    if len(reason) > _REASON_LIMIT:
        reason = f"{reason[: _REASON_LIMIT - 3]}..."
    response.status = f"{status} {reason or HTTP_STATUS_CODES.get(status, '')}"
    return response
