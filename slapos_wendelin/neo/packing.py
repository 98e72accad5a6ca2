# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack a NEO cluster: forget what objects were before a time.

``python -m slapos_wendelin.neo.packing --cluster NAME --masters "HOST:PORT ..." --before SECONDS``
ends when all storages have done so, or with the reason as its last line. Done twice, it has the
same effect. Only clients of NEO can ask for it, so this is one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from neo.client.exception import NEOStorageError
from neo.client.Storage import Storage
from neo.lib.connection import ConnectionClosed

from slapos_wendelin.neo import certificates

#: Seconds between two attempts while another pack is under way, or the primary master was lost.
_INTERVAL = 2.0

#: Attempts to reach the primary master, about one a second.
_MASTER_ATTEMPTS = 120


def pack(storage: Storage, before: float) -> None:
    """Pack; wait for another pack that is under way, and for another primary master."""
    while True:
        try:
            storage.app.pack(before)
        except ConnectionClosed:
            pass
        except NEOStorageError as error:
            if str(error) != "Already packing":
                raise
        else:
            return
        time.sleep(_INTERVAL)


def main() -> None:
    """Pack the cluster of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cluster", required=True, help="name of the cluster")
    parser.add_argument("--masters", required=True, help="addresses of the masters")
    parser.add_argument("--before", required=True, type=float, help="seconds since the epoch")
    parser.add_argument(
        "--certificates", type=Path, help="folder of the certificate (default: no TLS)"
    )
    options = parser.parse_args()
    files = certificates.files_in(options.certificates) if options.certificates else ()
    tls = dict(zip(("ca", "cert", "key"), files, strict=False))
    storage = Storage(options.masters, options.cluster, **tls)
    storage.app.max_reconnection_to_master = _MASTER_ATTEMPTS
    try:
        pack(storage, options.before)
    except NEOStorageError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    finally:
        storage.close()


if __name__ == "__main__":
    main()
