# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What slapos.core lacks: a check of the master, new certificates for instances, Python 3.11.

Each function below changes one module of slapos.core as soon as it is imported, in whatever
program: the slapos command, slapgrid, buildout with slapos.cookbook's recipes, promises, the
watchdog. Python calls `install` at each start (see setup.py), so this module imports almost
nothing itself. When a change cannot be made, the module cannot be imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple


class _Making(NamedTuple):
    """What is known of a connection while it is made."""

    authority_file: str | None = None
    #: Whether the slap library keeps every error to itself.
    is_silent: bool = False


_making: ContextVar[_Making] = ContextVar("making", default=_Making())  # noqa: B039 (immutable)


def install() -> None:
    """See to it that slapos.core is changed, once in a process."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
        for name, change in CHANGES.items():
            if name in sys.modules:
                change(sys.modules[name])


class _Finder:
    """Finds the modules that are to be changed."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the module's own specification, with the change after its execution."""
        change = CHANGES.get(name)
        spec = PathFinder.find_spec(name, path, target) if change else None
        if change is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change  # pyright: ignore (its own method, wrapped)
        return spec


def _check_masters(module: Any) -> None:
    """Let the slap library send its requests to the true master only."""
    import logging  # noqa: PLC0415 (most programs need none of it)

    from slapos_wendelin import trust  # noqa: PLC0415

    class Untrusted(trust.UntrustedMasterError, module.ConnectionError):
        """Is for slapgrid a master that cannot be reached: what runs goes on."""

    stock_request = module.ConnectionHelper.do_request

    def do_request(helper: Any, method: Any, path: str, *rest: Any, **options: Any) -> Any:
        def send(**request: Any) -> Any:
            making = _making.get()
            request["ca_file"] = helper.master_ca_file or making.authority_file
            try:
                return trust.send(method.__name__, **request)
            except trust.UntrustedMasterError as error:
                if making.is_silent:
                    logging.getLogger("slapos").error("%s", error)  # noqa: TRY400 (no traceback)
                raise Untrusted(error.message, error.remedy) from error

        return stock_request(helper, send, path, *rest, **options)

    module.ConnectionHelper.do_request = do_request


def _accept_authority_file(module: Any) -> None:
    """Let the slap library take the file of the authority, which it refuses to take."""
    stock_initialize = module.slap.initializeConnection

    def initialize(  # noqa: PLR0917 (the parameters are slapos.core's)
        slap: Any,
        slapgrid_uri: str,
        key_file: str | None = None,
        cert_file: str | None = None,
        master_ca_file: str | None = None,
        timeout: float | None = 60,
        slapgrid_rest_uri: str | None = None,
    ) -> None:
        # The connection is used while it is made, and what goes wrong then is not told.
        before = _making.set(_Making(master_ca_file, is_silent=True))
        try:
            stock_initialize(
                slap, slapgrid_uri, key_file, cert_file, None, timeout, slapgrid_rest_uri
            )
        finally:
            _making.reset(before)
        for connection in (slap._connection_helper, slap._hateoas_navigator):  # noqa: SLF001
            if connection is not None:
                connection.master_ca_file = master_ca_file

    module.slap.initializeConnection = initialize


def _check_registration(module: Any) -> None:
    """Let a command that asks a master for its first certificate ask the true one only."""
    from slapos_wendelin import trust  # noqa: PLC0415 (most programs need none of it)

    module.requests = SimpleNamespace(
        get=partial(trust.send, "get"), post=partial(trust.send, "post")
    )


def _read_beside_modules(module: Any) -> None:
    """Let slapos.core read files beside its modules under Python 3.11."""
    from slapos_wendelin import module_files  # noqa: PLC0415 (only Python 3.11 needs it)

    module_files.accept_module_names(module)


def _replace_certificates(module: Any) -> None:
    """Let slapgrid replace an instance's certificate when it is an ordinary user too.

    It writes the files so that nobody may write them, and could not write them again.
    """
    from pathlib import Path  # noqa: PLC0415 (most programs need none of it)

    stock_update = module.Partition._updateCertificate  # noqa: SLF001

    def update(partition: Any) -> None:
        files = [Path(each) for each in (partition.key_file, partition.cert_file) if each]
        for path in filter(Path.exists, files):
            path.chmod(0o600)
        stock_update(partition)
        for path in filter(Path.exists, files):
            path.chmod(0o400)

    module.Partition._updateCertificate = update  # noqa: SLF001


#: What is changed of each module of slapos.core.
CHANGES: Mapping[str, Callable[[Any], None]] = {
    "slapos.grid.SlapObject": _replace_certificates,
    "slapos.slap.hateoas": _check_masters,
    "slapos.slap.slap": _accept_authority_file,
    "slapos.cli.configure_client": _check_registration,
    "slapos.cli.register": _check_registration,
    **({"slapos.util": _read_beside_modules} if sys.version_info < (3, 12) else {}),
}
