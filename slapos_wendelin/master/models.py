# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the master's database, the same on SQLite, MariaDB and PostgreSQL."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

#: What stands before the row number in an instance's guid, as on other SlapOS masters.
GUID_PREFIX = "SOFTINST-"

#: The longest name and the longest URL, in characters. MariaDB bounds an index to 3072 bytes, and
#: a character takes up to four.
NAME_LENGTH = 255
URL_LENGTH = 700

#: The key among what a computer has told of itself of where it is with the build of a release.
BUILD = "build"

#: How much of a longer text MariaDB's indexes hold.
_INDEXED_LENGTH = 500

#: Names that differ in case or in trailing spaces are different names, on MariaDB too.
_TABLE_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("charset", "utf8mb4"),
        ("collate", "utf8mb4_nopad_bin"),
    )
}

_Name = String(NAME_LENGTH)
_Word = String(40)
_Url = String(URL_LENGTH)
#: MariaDB's plain TEXT ends at 64 KiB.
_Log = Text().with_variant(Text(1 << 20), "mysql", "mariadb")
#: SQLite numbers rows by itself only in a column of type INTEGER.
_RowNumber = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """The base of every table."""

    type_annotation_map: ClassVar = {
        dict[str, Any]: JSON,
        list[Any]: JSON,
        # Seconds since the epoch: MariaDB's FLOAT is too coarse for them.
        float: Double,
        str: _Name,
    }

    __table_args__: Any = _TABLE_OPTIONS


class Property(Base):
    """One number about the database itself.

    The row ``last_number`` is also the lock that each writing transaction takes first.
    """

    __tablename__ = "property"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class Computer(Base):
    """A host that runs partitions; the row stays when the computer has left."""

    __tablename__ = "computer"

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(unique=True)
    datacenter: Mapped[str] = mapped_column(default="")
    region: Mapped[str] = mapped_column(default="")
    provider: Mapped[str] = mapped_column(default="")
    network: Mapped[str] = mapped_column(default="")
    #: Latitude and longitude in degrees, or an empty list.
    coordinates: Mapped[list[Any]] = mapped_column(default=list)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    address: Mapped[str] = mapped_column(default="")
    #: What an operator wants of it: eligible, cordoned, draining or removed.
    state: Mapped[str] = mapped_column(_Word, default="eligible")
    #: What it has: ``cpu_core``, ``memory_size`` and ``storage_capacity`` (bytes), what it uses and
    #: when that was measured; under BUILD where it is with a build. Empty before the first one.
    measured: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: The number of the newest work of this computer; 0 when there has been none.
    number: Mapped[int] = mapped_column(BigInteger, default=0)
    #: The number of the last transaction that changed this computer, its partitions, its software
    #: or an instance on it: what was made from these rows is good as long as this is the same.
    revision: Mapped[int] = mapped_column(BigInteger, default=0, index=True)
    #: What ``number`` was when the computer last read what it shall run.
    fetched_number: Mapped[int] = mapped_column(BigInteger, default=0)
    #: When the computer last asked for its work, seconds since the epoch.
    contacted_at: Mapped[float | None]
    partitions: Mapped[list[Partition]] = relationship(
        back_populates="computer", order_by="Partition.id", cascade="all, delete-orphan"
    )
    software: Mapped[list[Software]] = relationship(
        back_populates="computer", order_by="Software.id", cascade="all, delete-orphan"
    )


class Partition(Base):
    """A place for one instance on a computer."""

    __tablename__ = "partition"
    __table_args__ = (UniqueConstraint("computer_id", "reference"), _TABLE_OPTIONS)

    id: Mapped[int] = mapped_column(primary_key=True)
    computer_id: Mapped[int] = mapped_column(ForeignKey("computer.id"))
    reference: Mapped[str]
    #: Pairs of network interface and IP address.
    addresses: Mapped[list[Any]] = mapped_column(default=list)
    #: False once the computer was formatted without this partition while an instance was in it.
    offered: Mapped[bool] = mapped_column(default=True)
    computer: Mapped[Computer] = relationship(back_populates="partitions")
    instance: Mapped[Instance | None] = relationship(back_populates="partition")


class Software(Base):
    """A software release that a computer has, shall have or shall lose."""

    __tablename__ = "software"
    __table_args__ = (UniqueConstraint("computer_id", "url"), _TABLE_OPTIONS)

    id: Mapped[int] = mapped_column(primary_key=True)
    computer_id: Mapped[int] = mapped_column(ForeignKey("computer.id"))
    url: Mapped[str] = mapped_column(_Url)
    #: available or destroyed.
    requested_state: Mapped[str] = mapped_column(_Word)
    #: Empty, building, available or error.
    reported_state: Mapped[str] = mapped_column(_Word, default="")
    reported_at: Mapped[float | None]
    error: Mapped[str] = mapped_column(_Log, default="")
    number: Mapped[int] = mapped_column(BigInteger, default=0)
    computer: Mapped[Computer] = relationship(back_populates="software")


class Instance(Base):
    """A software instance; the row stays when the instance has been destroyed."""

    __tablename__ = "instance"
    #: An instance that was asked to go leaves the namespace of its tree at once: ``live`` is then
    #: null, and null differs from null in a unique constraint.
    __table_args__ = (UniqueConstraint("tree_id", "reference", "live"), _TABLE_OPTIONS)

    id: Mapped[int] = mapped_column(primary_key=True)
    #: The name that it was requested under.
    reference: Mapped[str]
    #: The row of the root of its tree; 0 for a root, so that roots share one namespace.
    tree_id: Mapped[int] = mapped_column(default=0, index=True)
    live: Mapped[bool | None] = mapped_column(default=True)
    requester_id: Mapped[int | None] = mapped_column(ForeignKey("instance.id"), index=True)
    #: Whether it is a shared instance: one that another instance, its provider, hosts.
    shared: Mapped[bool] = mapped_column(default=False)
    provider_id: Mapped[int | None] = mapped_column(ForeignKey("instance.id"), index=True)
    software_release: Mapped[str] = mapped_column(_Url)
    software_type: Mapped[str]
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sla: Mapped[dict[str, Any]] = mapped_column(default=dict)
    connection: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: The state that its requester asked for: started, stopped or destroyed.
    requested_state: Mapped[str] = mapped_column(_Word)
    #: The state that it shall have: the most severe of its own and those of its requesters up to
    #: the root.
    state: Mapped[str] = mapped_column(_Word)
    #: Empty, started, stopped or destroyed, as its computer last reported.
    reported_state: Mapped[str] = mapped_column(_Word, default="")
    reported_at: Mapped[float | None]
    #: The computer's ``fetched_number`` when it last reported a state.
    reported_number: Mapped[int] = mapped_column(BigInteger, default=0)
    #: The text of the last error since it was last reported in order; empty when in order.
    error: Mapped[str] = mapped_column(_Log, default="")
    error_at: Mapped[float | None]
    #: Where it is; empty for a shared instance, which is where its provider is.
    partition_id: Mapped[int | None] = mapped_column(ForeignKey("partition.id"), unique=True)
    #: Why each computer was or was not chosen.
    placement: Mapped[list[Any]] = mapped_column(default=list)
    #: The number of its newest change; the slap protocol's timestamp.
    number: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[float]
    destroyed_at: Mapped[float | None]
    partition: Mapped[Partition | None] = relationship(back_populates="instance")
    requester: Mapped[Instance | None] = relationship(
        back_populates="children", remote_side="Instance.id", foreign_keys="Instance.requester_id"
    )
    children: Mapped[list[Instance]] = relationship(
        back_populates="requester", order_by="Instance.id", foreign_keys="Instance.requester_id"
    )
    provider: Mapped[Instance | None] = relationship(
        back_populates="shared_instances",
        remote_side="Instance.id",
        foreign_keys="Instance.provider_id",
    )
    shared_instances: Mapped[list[Instance]] = relationship(
        back_populates="provider", order_by="Instance.id", foreign_keys="Instance.provider_id"
    )

    @property
    def guid(self) -> str:
        """The name of this instance that no other one ever has."""
        return f"{GUID_PREFIX}{self.id}"

    @property
    def is_root(self) -> bool:
        """Whether a user, not another instance, requested it."""
        return self.tree_id == 0

    @property
    def is_settled(self) -> bool:
        """Whether its computer has read its newest change and then reported what was wanted."""
        return (
            self.reported_state == self.state
            and not self.error
            and self.reported_number >= self.number
        )

    @property
    def root_id(self) -> int:
        """The row of the root of its tree, its own for a root."""
        return self.tree_id or self.id

    @property
    def root_guid(self) -> str:
        """The guid of the root of its tree, which is also the name of its cluster's authority."""
        return f"{GUID_PREFIX}{self.root_id}"


class Product(Base):
    """An entry of the catalog: a name that users request instead of a release URL."""

    __tablename__ = "product"

    name: Mapped[str] = mapped_column(primary_key=True)
    release_url: Mapped[str] = mapped_column(_Url)
    software_type: Mapped[str] = mapped_column(default="default")
    version: Mapped[str] = mapped_column(default="")
    defaults: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Change(Base):
    """What one transaction changed in one row, by whom and when; never changed itself."""

    __tablename__ = "change"
    __table_args__ = (
        Index(
            "change_by_subject",
            "kind",
            "subject",
            "id",
            mysql_length={"subject": _INDEXED_LENGTH},
            mariadb_length={"subject": _INDEXED_LENGTH},
        ),
        Index("change_by_tree", "tree_id", "id"),
        _TABLE_OPTIONS,
    )

    id: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    #: The number of the transaction: all its changes have the same.
    number: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[float]
    #: Kind and name of the caller, such as ``operator/alice``.
    who: Mapped[str]
    #: The table: instance, computer, partition, software, product, user, certificate or operation.
    kind: Mapped[str] = mapped_column(_Word)
    #: The row as people name it: a guid, a computer, a computer and a partition or a URL.
    subject: Mapped[str] = mapped_column(String(NAME_LENGTH + URL_LENGTH + 1))
    #: The row of the root of the instance's tree; 0 for what is no instance.
    tree_id: Mapped[int] = mapped_column(default=0)
    #: added, changed or removed.
    action: Mapped[str] = mapped_column(_Word)
    #: The values of the changed columns before and after; empty for what was not there.
    before: Mapped[dict[str, Any]]
    after: Mapped[dict[str, Any]]


class Operation(Base):
    """What somebody asks of the NEO of a cluster, which the cluster's keeper does and answers."""

    __tablename__ = "operation"
    __table_args__ = (Index("operation_by_tree", "tree_id", "id"), _TABLE_OPTIONS)

    id: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    #: The row of the root of the cluster's tree.
    tree_id: Mapped[int]
    #: The number of the newest change that the keeper has to know of.
    number: Mapped[int] = mapped_column(BigInteger, default=0, index=True)
    #: What is asked for; `is_look` when it changes nothing.
    kind: Mapped[str] = mapped_column(_Word)
    is_look: Mapped[bool]
    arguments: Mapped[dict[str, Any]]
    created_by: Mapped[str]
    created_at: Mapped[float]
    #: waiting, running, done, failed or cancelled.
    state: Mapped[str] = mapped_column(_Word)
    #: Which run of the keeper does it; empty while it waits.
    keeper: Mapped[str] = mapped_column(String(64), default="")
    #: When it counts as failed unless the keeper says something before, seconds since the epoch.
    expires_at: Mapped[float]
    taken_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    #: How far it has come, and what came of it.
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: Why it failed, and what to do about it.
    error: Mapped[str] = mapped_column(_Log, default="")
    remedy: Mapped[str] = mapped_column(_Log, default="")


class Plan(Base):
    """A request that somebody had explained, so that it can be applied as it was shown."""

    __tablename__ = "plan"

    id: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    created_at: Mapped[float]
    created_by: Mapped[str]
    #: The request as it was sent.
    request: Mapped[dict[str, Any]]
    #: What it would have done at that time.
    effects: Mapped[dict[str, Any]]
    applied_at: Mapped[float | None]


class User(Base):
    """A person, or a program of one, who calls with a certificate; the row stays when removed."""

    __tablename__ = "user"

    name: Mapped[str] = mapped_column(primary_key=True)
    #: operator or viewer.
    role: Mapped[str] = mapped_column(_Word)
    created_at: Mapped[float]
    removed_at: Mapped[float | None]


class Token(Base):
    """A secret that lets one computer or user in, once; only its digest is kept."""

    __tablename__ = "token"

    #: SHA-256 of the token, in hexadecimal digits.
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    #: computer or user.
    kind: Mapped[str] = mapped_column(_Word)
    #: Whom it lets in.
    name: Mapped[str]
    #: The role of a user; empty for a computer.
    role: Mapped[str] = mapped_column(_Word, default="")
    #: What to keep of the computer that joins: data center, region and so on.
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_by: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float]
    used_at: Mapped[float | None]
    #: SHA-256 of the public key that it was used for, so that a lost answer can be asked for again.
    public_key: Mapped[str] = mapped_column(String(64), default="")


class Certificate(Base):
    """A certificate that the master's authority has signed."""

    __tablename__ = "certificate"

    #: The serial number, in hexadecimal digits.
    serial: Mapped[str] = mapped_column(String(64), primary_key=True)
    #: user, computer or partition; in a cluster node or client.
    kind: Mapped[str] = mapped_column(_Word)
    #: The user, the computer's reference or the instance's guid; in a cluster the guid of its root
    #: and, after a slash, the instance's guid or the user.
    name: Mapped[str] = mapped_column(index=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    issued_at: Mapped[float]
    not_after: Mapped[float]
    revoked_at: Mapped[float | None]
    #: Why it was revoked.
    reason: Mapped[str] = mapped_column(default="")
