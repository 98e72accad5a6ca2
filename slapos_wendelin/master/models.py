# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the master's database."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

#: What stands before the row number in an instance's guid, as on other SlapOS masters.
GUID_PREFIX = "SOFTINST-"


class Base(DeclarativeBase):
    """The base of every table."""

    type_annotation_map: ClassVar = {dict[str, Any]: JSON, list[Any]: JSON}


class Property(Base):
    """One fact about the database itself: its schema version, the last number that it gave out."""

    __tablename__ = "property"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class Computer(Base):
    """A host that runs partitions."""

    __tablename__ = "computer"

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(unique=True)
    datacenter: Mapped[str] = mapped_column(default="")
    region: Mapped[str] = mapped_column(default="")
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    address: Mapped[str] = mapped_column(default="")
    #: The number of the newest work of this computer; 0 when there has been none.
    number: Mapped[int] = mapped_column(BigInteger, default=0)
    #: What ``number`` was when the computer last read what it shall run.
    fetched_number: Mapped[int] = mapped_column(BigInteger, default=0)
    #: When the computer last asked for its work, seconds since the epoch.
    contacted_at: Mapped[float | None] = mapped_column(Float)
    partitions: Mapped[list[Partition]] = relationship(
        back_populates="computer", order_by="Partition.id", cascade="all, delete-orphan"
    )
    software: Mapped[list[Software]] = relationship(
        back_populates="computer", order_by="Software.id", cascade="all, delete-orphan"
    )


class Partition(Base):
    """A place for one instance on a computer."""

    __tablename__ = "partition"
    __table_args__ = (UniqueConstraint("computer_id", "reference"),)

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
    __table_args__ = (UniqueConstraint("computer_id", "url"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    computer_id: Mapped[int] = mapped_column(ForeignKey("computer.id"))
    url: Mapped[str]
    #: available or destroyed.
    requested_state: Mapped[str]
    #: Empty, building, available or error.
    reported_state: Mapped[str] = mapped_column(default="")
    reported_at: Mapped[float | None]
    error: Mapped[str] = mapped_column(default="")
    number: Mapped[int] = mapped_column(BigInteger, default=0)
    computer: Mapped[Computer] = relationship(back_populates="software")


class Instance(Base):
    """A software instance; the row stays when the instance has been destroyed."""

    __tablename__ = "instance"
    #: An instance that was asked to go leaves the namespace of its tree at once: ``live`` is then
    #: null, and null differs from null in a unique constraint.
    __table_args__ = (UniqueConstraint("tree_id", "reference", "live"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    #: The name that it was requested under.
    reference: Mapped[str]
    #: The row of the root of its tree; 0 for a root, so that roots share one namespace.
    tree_id: Mapped[int] = mapped_column(default=0, index=True)
    live: Mapped[bool | None] = mapped_column(default=True)
    requester_id: Mapped[int | None] = mapped_column(ForeignKey("instance.id"), index=True)
    software_release: Mapped[str]
    software_type: Mapped[str]
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sla: Mapped[dict[str, Any]] = mapped_column(default=dict)
    connection: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: The state that its requester asked for: started, stopped or destroyed.
    requested_state: Mapped[str]
    #: The state that it shall have: the most severe of its own and those of its requesters up to
    #: the root.
    state: Mapped[str]
    #: Empty, started, stopped or destroyed, as its computer last reported.
    reported_state: Mapped[str] = mapped_column(default="")
    reported_at: Mapped[float | None]
    #: The computer's ``fetched_number`` when it last reported a state.
    reported_number: Mapped[int] = mapped_column(BigInteger, default=0)
    #: The text of the last error since it was last reported in order; empty when in order.
    error: Mapped[str] = mapped_column(default="")
    error_at: Mapped[float | None]
    partition_id: Mapped[int | None] = mapped_column(ForeignKey("partition.id"), unique=True)
    #: Why each computer was or was not chosen.
    placement: Mapped[list[Any]] = mapped_column(default=list)
    #: The number of its newest change; the slap protocol's timestamp.
    number: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[float]
    destroyed_at: Mapped[float | None]
    partition: Mapped[Partition | None] = relationship(back_populates="instance")
    requester: Mapped[Instance | None] = relationship(
        back_populates="children", remote_side="Instance.id"
    )
    children: Mapped[list[Instance]] = relationship(
        back_populates="requester", order_by="Instance.id"
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


class Product(Base):
    """An entry of the catalog: a name that users request instead of a release URL."""

    __tablename__ = "product"

    name: Mapped[str] = mapped_column(primary_key=True)
    release_url: Mapped[str]
    software_type: Mapped[str] = mapped_column(default="default")
    version: Mapped[str] = mapped_column(default="")
    defaults: Mapped[dict[str, Any]] = mapped_column(default=dict)
