# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slap protocol's endpoints: forms in, XML out.

The installed slapos.slap.slap (client), slapos.grid.slapgrid and slapos.format are the reference.
"""

from __future__ import annotations

from flask import Blueprint, Response, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.master import computers, handing_out, registry, reports
from slapos_wendelin.master import requests as instance_requests
from slapos_wendelin.master.access import revoke
from slapos_wendelin.master.checks import (
    AVAILABLE,
    BUILDING,
    DESTROYED,
    INSTANCE_STATES,
    SOFTWARE_STATES,
    STARTED,
    STOPPED,
    check_name,
    check_state,
    check_url,
    shown,
)
from slapos_wendelin.master.context import COMPUTER, context
from slapos_wendelin.master.documents import (
    absent_document,
    access_status,
    computer_document,
    computer_status,
    instance_document,
    partition_document,
)
from slapos_wendelin.master.errors import InvalidRequestError
from slapos_wendelin.master.marshalling import load, load_dictionary, load_texts
from slapos_wendelin.master.models import Instance, Product
from slapos_wendelin.master.renaming import rename
from slapos_wendelin.master.repeating import new_answer, repeated_answer
from slapos_wendelin.master.requesting import NONE, requesting_partition
from slapos_wendelin.master.shared import hosted_instance
from slapos_wendelin.master.usage import read_usage
from slapos_wendelin.master.xml_writer import dump

blueprint = Blueprint("protocol", __name__)

_NOTHING = "<marshal><none/></marshal>"
_EMPTY = "<marshal><dictionary/></marshal>"


@blueprint.get("/getFullComputerInformation")
@blueprint.get("/getComputerInformation")
def get_full_computer_information() -> Response:
    """Tell a computer its software releases and partitions."""
    reference = _argument("computer_id")
    with context().reading() as session:
        host = registry.computer(session, reference)
        answer = context().answers.made_from(
            (request.path, reference),
            frozenset({(host.id, host.revision)}),
            lambda: dump(computer_document(host)),
        )
    if context().is_call_of_computer():
        context().presence.read(host, request.remote_addr or "")
    response = Response(answer.body, mimetype="text/xml")
    response.set_etag(answer.tag)
    response.make_conditional(request)
    return response


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
    repeated = repeated_answer()
    if repeated is not None:
        return Response(repeated, mimetype="text/xml")
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
        shared=_truth("shared_xml"),
    )
    place = requesting_partition()

    def serve(session: Session) -> tuple[bytes, tuple[Instance | None, ...]]:
        requester = None if place is None else instance_requests.requester_of(session, *place)
        instance = instance_requests.request_instance(session, wanted, requester)
        session.flush()
        document = absent_document() if instance is None else instance_document(instance)
        # What is not there may come to be on any computer.
        return dump(document), () if instance is None else (instance, requester)

    return Response(new_answer(serve), mimetype="text/xml")


@blueprint.post("/setComputerPartitionConnectionXml")
def set_computer_partition_connection_xml() -> str:
    """Keep what an instance publishes, for itself or for a shared instance that it hosts."""
    connection = load_texts(_field("connection_xml"), "connection_xml")
    with context().writing() as session:
        reports.set_connection(session, _named_instance(session), connection)
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
        place = registry.partition(session, *_partition_fields())
        reports.report_destroyed(session, place)
    return "OK"


@blueprint.post("/softwareInstanceError")
def software_instance_error() -> str:
    """Keep the error of an instance, or of a shared instance that it hosts."""
    with context().writing() as session:
        reports.report_error(_named_instance(session), request.form.get("error_log", ""))
    return "OK"


@blueprint.post("/softwareInstanceRename")
def software_instance_rename() -> str:
    """Rename an instance, or a shared instance that it hosts."""
    name = check_name(_field("new_name"), "the new name")
    with context().writing() as session:
        rename(session, _named_instance(session), name)
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
    return _xml("")


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
    return _report_software(BUILDING)


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
    usage = read_usage(_field("use_string"), reference, "use_string")
    with context().writing() as session:
        host = registry.computer(session, reference)
        computers.keep_usage(host, usage)
        context().presence.seen_in_transaction(host, request.remote_addr or "")
    return "OK"


@blueprint.get("/getComputerPartitionCertificate")
def get_computer_partition_certificate() -> Response:
    """Give the certificate and key of the instance in a partition, which slapgrid writes there.

    Both are empty when the partition is free, or the master signs nothing.
    """
    computer, place = _argument("computer_id"), _argument("computer_partition_id")
    with context().reading() as session:
        instance = registry.partition(session, computer, place).instance
        guid = None if instance is None else instance.guid
    return _xml(handing_out.partition_certificate(guid))


@blueprint.post("/generateComputerCertificate")
def generate_computer_certificate() -> Response:
    """Give an operator a certificate and a key for a computer."""
    return _xml(handing_out.computer_certificate(_field("computer_id")))


@blueprint.post("/revokeComputerCertificate")
def revoke_computer_certificate() -> str:
    """Revoke the certificates of a computer."""
    with context().writing() as session:
        host = registry.computer(session, _field("computer_id"))
        revoke(session, COMPUTER, host.reference, "an operator revoked it")
    return "OK"


@blueprint.get("/getComputerStatus")
def get_computer_status() -> Response:
    """Tell when a computer was last in contact."""
    with context().reading() as session:
        host = registry.computer(session, _argument("computer_id"))
        return _xml(computer_status(host, context().presence.last(host)))


@blueprint.get("/getComputerPartitionStatus")
def get_computer_partition_status() -> Response:
    """Tell what was last reported of the instance in a partition."""
    with context().reading() as session:
        instance = registry.instance_in(
            session, _argument("computer_id"), _argument("computer_partition_id")
        )
        return _xml({"user": instance.guid, "text": access_status(instance)})


@blueprint.get("/getHostingSubscriptionIpList")
def get_hosting_subscription_ip_list() -> Response:
    """Give the addresses of all partitions of the tree of which the instance is."""
    with context().reading() as session:
        instance = registry.instance_in(
            session, _argument("computer_id"), _argument("computer_partition_id")
        )
        places = [each.partition for each in reports.placed_instances(session, instance.root_id)]
        return _xml([tuple(pair) for place in places if place for pair in place.addresses])


@blueprint.get("/getSoftwareReleaseListFromSoftwareProduct")
def get_software_release_list_from_software_product() -> Response:
    """Give the release URL of a product, or of those that have that URL; a list, often empty."""
    reference = request.args.get("software_product_reference")
    url = request.args.get("software_release_url")
    if (reference is None) == (url is None):
        raise InvalidRequestError(
            "a product is looked up by one of software_product_reference and software_release_url",
            "send one of them",
        )
    condition = Product.release_url == url if reference is None else Product.name == reference
    with context().reading() as session:
        return _xml(list(session.scalars(select(Product.release_url).where(condition).distinct())))


@blueprint.get("/getHateoasUrl")
def get_hateoas_url() -> Response:
    """Give the address of the routes that ``slapos service`` and ``slapos computer`` read."""
    return Response(f"{request.host_url}hateoas/", mimetype="text/plain")


def _named_instance(session: Session) -> Instance:
    """Return the instance in the partition that the form names, or a shared one that it hosts."""
    instance = registry.instance_in(session, *_partition_fields())
    reference = _optional("slave_reference")
    return hosted_instance(instance, reference) if reference else instance


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
    """Return a form field or query argument, or nothing."""
    value = request.values.get(name, "")
    return "" if value == NONE else value


def _truth(name: str) -> bool:
    """Return a form field that holds true, or something empty for false."""
    value = load(request.form.get(name, _NOTHING), name)
    if value and value is not True:
        raise InvalidRequestError(f"{name} is {shown(value)}", "send true or false")
    return bool(value)


def _argument(name: str) -> str:
    """Return a query argument that must be there."""
    value = request.args.get(name, "")
    if not value:
        raise InvalidRequestError(f"the query argument {name!r} is missing", f"send {name!r}")
    return value


def _xml(document: object) -> Response:
    """Return an answer in the format of xml_marshaller."""
    return Response(dump(document), mimetype="text/xml")
