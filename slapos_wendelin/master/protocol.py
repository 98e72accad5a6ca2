# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slap protocol's endpoints: forms in, XML out.

The installed slapos.slap.slap (client), slapos.grid.slapgrid and slapos.format are the reference.
"""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Response, request
from slapos.util import dumps

from slapos_wendelin.master import computers, registry, reports
from slapos_wendelin.master import requests as instance_requests
from slapos_wendelin.master.checks import (
    AVAILABLE,
    DESTROYED,
    INSTANCE_STATES,
    SOFTWARE_STATES,
    STARTED,
    STOPPED,
    check_name,
    check_state,
    check_url,
)
from slapos_wendelin.master.context import context
from slapos_wendelin.master.documents import (
    absent_document,
    computer_document,
    instance_document,
    partition_document,
)
from slapos_wendelin.master.errors import InvalidRequestError, NotSupportedError
from slapos_wendelin.master.marshalling import load, load_dictionary, load_texts
from slapos_wendelin.master.models import Product
from slapos_wendelin.master.usage import read_usage

blueprint = Blueprint("protocol", __name__)

#: What the slap library sends in a form for None.
_NONE = "None"

_NOTHING = "<marshal><none/></marshal>"
_EMPTY = "<marshal><dictionary/></marshal>"


@blueprint.get("/getFullComputerInformation")
@blueprint.get("/getComputerInformation")
def get_full_computer_information() -> Response:
    """Tell a computer its software releases and partitions."""
    with context().reading() as session:
        host = registry.computer(session, _argument("computer_id"))
        answer = _xml(computer_document(host))
    context().presence.read(host, request.remote_addr or "")
    return answer


@blueprint.get("/registerComputerPartition")
def register_computer_partition() -> Response:
    """Tell one partition what it is."""
    with context().reading() as session:
        place = registry.partition(
            session, _argument("computer_reference"), _argument("computer_partition_reference")
        )
        return _xml(partition_document(place))


@blueprint.post("/requestComputerPartition")
def request_computer_partition() -> Response:
    """Create, change, stop or destroy an instance for a user or for another instance."""
    if load(request.form.get("shared_xml", _NOTHING), "shared_xml"):
        raise NotSupportedError(
            "shared instances are not supported", "request an instance of its own instead"
        )
    state = load(request.form.get("state", _NOTHING), "state")
    sla = load_dictionary(request.form.get("filter_xml", _EMPTY), "filter_xml")
    wanted = instance_requests.InstanceRequest(
        reference=check_name(_field("partition_reference"), "the instance's reference"),
        software_release=check_url(_field("software_release"), "the software release"),
        software_type=check_name(_optional("software_type") or "default", "the software type"),
        state=None if state is None else check_state(state, INSTANCE_STATES),
        parameters=load_texts(
            request.form.get("partition_parameter_xml", _EMPTY),
            "partition_parameter_xml",
        ),
        sla=sla,
    )
    computer, partition = _optional("computer_id"), _optional("computer_partition_id")
    with context().writing() as session:
        requester = None
        if computer or partition:
            requester = instance_requests.requester_of(session, computer, partition)
        instance = instance_requests.request_instance(session, wanted, requester)
        session.flush()
        return _xml(absent_document() if instance is None else instance_document(instance))


@blueprint.post("/setComputerPartitionConnectionXml")
def set_computer_partition_connection_xml() -> str:
    """Keep what an instance publishes."""
    if _optional("slave_reference"):
        raise NotSupportedError("shared instances are not supported", "publish without a slave")
    connection = load_texts(_field("connection_xml"), "connection_xml")
    with context().writing() as session:
        instance = registry.instance_in(session, *_partition_fields())
        reports.set_connection(session, instance, connection)
    return "OK"


@blueprint.post("/startedComputerPartition")
def started_computer_partition() -> str:
    """Keep that an instance runs and its promises pass."""
    return _report(STARTED)


@blueprint.post("/stoppedComputerPartition")
def stopped_computer_partition() -> str:
    """Keep that an instance is stopped."""
    return _report(STOPPED)


@blueprint.post("/destroyedComputerPartition")
def destroyed_computer_partition() -> str:
    """Free the partition of an instance that was to be destroyed."""
    with context().writing() as session:
        reports.report_destroyed(session, *_partition_fields())
    return "OK"


@blueprint.post("/softwareInstanceError")
def software_instance_error() -> str:
    """Keep the error of an instance."""
    with context().writing() as session:
        instance = registry.instance_in(session, *_partition_fields())
        reports.report_error(instance, request.form.get("error_log", ""))
    return "OK"


@blueprint.post("/softwareInstanceBang")
def software_instance_bang() -> str:
    """Make every instance of the tree due."""
    with context().writing() as session:
        reports.bang_tree(session, registry.instance_in(session, *_partition_fields()))
    return "OK"


@blueprint.post("/computerBang")
def computer_bang() -> Response:
    """Make every instance of the computer due."""
    with context().writing() as session:
        reports.bang_computer(session, registry.computer(session, _field("computer_id")))
    return _xml("OK")


@blueprint.post("/updateComputerPartitionRelatedInstanceList")
def update_computer_partition_related_instance_list() -> str:
    """Destroy the children that an instance did not request in its last run."""
    references = load(_field("instance_reference_xml"), "instance_reference_xml")
    if not isinstance(references, list) or not all(isinstance(each, str) for each in references):
        raise InvalidRequestError("instance_reference_xml is not a list of names", "send a list")
    with context().writing() as session:
        instance = registry.instance_in(session, *_partition_fields())
        instance_requests.collect_children(session, instance, frozenset(references))
    return "OK"


@blueprint.post("/supplySupply")
def supply_supply() -> str:
    """Ask for a software release on a computer, or for its removal."""
    url = check_url(_field("url"), "the software release")
    state = check_state(_field("state"), SOFTWARE_STATES)
    with context().writing() as session:
        registry.supply(session, registry.computer(session, _field("computer_id")), url, state)
    return "OK"


@blueprint.post("/buildingSoftwareRelease")
def building_software_release() -> str:
    """Keep that a computer builds a release."""
    return _report_software("building")


@blueprint.post("/availableSoftwareRelease")
def available_software_release() -> str:
    """Keep that a computer has a release."""
    return _report_software(AVAILABLE)


@blueprint.post("/destroyedSoftwareRelease")
def destroyed_software_release() -> str:
    """Forget a release that a computer has removed."""
    return _report_software(DESTROYED)


@blueprint.post("/softwareReleaseError")
def software_release_error() -> str:
    """Keep why a release could not be built."""
    return _report_software("error", request.form.get("error_log") or "no text was reported")


@blueprint.post("/loadComputerConfigurationFromXML")
def load_computer_configuration_from_xml() -> str:
    """Take over the partitions that ``slapos node format`` made."""
    configuration = load_dictionary(_field("xml"), "xml")
    caller = request.remote_addr or ""
    with context().writing() as session:
        known = computers.find_if_any(session, str(configuration.get("reference") or ""))
        address = str(configuration.get("address") or "")
        context().presence.check_machine(known, address, caller)
        host = registry.load_configuration(session, configuration)
        context().presence.seen_in_transaction(host, caller)
    return "OK"


@blueprint.post("/useComputer")
def use_computer() -> str:
    """Keep the averages in a usage report."""
    reference = _field("computer_id")
    usage = read_usage(_field("use_string"), reference)
    with context().writing() as session:
        host = registry.computer(session, reference)
        computers.keep_usage(host, usage)
        context().presence.seen_in_transaction(host, request.remote_addr or "")
    return "OK"


@blueprint.get("/getComputerPartitionCertificate")
def get_computer_partition_certificate() -> Response:
    """Give a partition empty certificate and key files, which slapgrid writes as they are."""
    with context().reading() as session:
        registry.partition(session, _argument("computer_id"), _argument("computer_partition_id"))
    return _xml({"certificate": "", "key": ""})


@blueprint.get("/getSoftwareReleaseListFromSoftwareProduct")
def get_software_release_list_from_software_product() -> Response:
    """Give the release URL of a product in a list, which is empty for an unknown one."""
    if "software_product_reference" not in request.args:
        raise NotSupportedError(
            "releases cannot be looked up by software_release_url",
            "send software_product_reference",
        )
    with context().reading() as session:
        product = session.get(Product, request.args["software_product_reference"])
        return _xml([] if product is None else [product.release_url])


@blueprint.get("/getHateoasUrl")
def get_hateoas_url() -> Response:
    """Give the address of the routes that ``slapos service`` and ``slapos computer`` read."""
    return Response(f"{request.host_url}hateoas/", mimetype="text/plain")


def _report(state: str) -> str:
    """Keep the reported state of the instance that the form names."""
    with context().writing() as session:
        reports.report_state(session, registry.instance_in(session, *_partition_fields()), state)
    return "OK"


def _report_software(state: str, error: str = "") -> str:
    """Keep the reported state of the release that the form names."""
    with context().writing() as session:
        host = registry.computer(session, _field("computer_id"))
        reports.report_software(session, host, _field("url"), state, error)
    return "OK"


def _partition_fields() -> tuple[str, str]:
    """Return the computer and the partition that the form names."""
    return _field("computer_id"), _field("computer_partition_id")


def _field(name: str) -> str:
    """Return a form field that must be there."""
    value = _optional(name)
    if not value:
        raise InvalidRequestError(f"the form field {name!r} is missing", f"send {name!r}")
    return value


def _optional(name: str) -> str:
    """Return a form field, or nothing."""
    value = request.form.get(name, "")
    return "" if value == _NONE else value


def _argument(name: str) -> str:
    """Return a query argument that must be there."""
    value = request.args.get(name, "")
    if not value:
        raise InvalidRequestError(f"the query argument {name!r} is missing", f"send {name!r}")
    return value


def _xml(document: object) -> Response:
    """Return an answer in the format of xml_marshaller."""
    return Response(cast("bytes", dumps(document)), mimetype="text/xml")
