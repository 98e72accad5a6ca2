# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The places where stock zc.buildout 6 is changed, one function each.

They are applied by the extension, after buildout has read the profiles and before it makes their
sections. Nothing is changed on disk.
"""

import copy
import functools
import importlib.metadata
import io
from pathlib import Path
from typing import Any

from slapos.recipe.utils import Shared
from zc.buildout import buildout as stock
from zc.buildout import download, easy_install

from slapos_wendelin.buildout import values
from slapos_wendelin.buildout.base_location import OPTION
from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.files import sync_file_systems, write_atomically

SUPPORTED_MAJOR = 6

_MISSING = object()


def check_version() -> None:
    """Stop when zc.buildout is not of the major version whose internals are known here."""
    version = importlib.metadata.version("zc.buildout")
    if version.split(".", 1)[0] != str(SUPPORTED_MAJOR):
        raise ProfileError(
            f"slapos_wendelin extends zc.buildout {SUPPORTED_MAJOR}, but this is {version}",
            "install the versions that requirements/toolkit.txt pins",
        )


@functools.cache
def apply() -> None:
    """Change buildout, once in a process."""
    type_options()
    save_typed_options()
    keep_installed_whole()
    keep_shared_parts_whole()
    sign_recipes_by_version()
    explain_checksums()
    stay_offline()


def type_options() -> None:
    """Let options hold typed values: slapos.cookbook's recipes set and read dicts, sets, numbers.

    A value that is one reference and nothing else keeps its type. Values that were already
    substituted are not substituted again, so that a parameter with ``${`` in it stays text.
    """
    module: Any = stock
    module.dumps = values.dumps
    module.loads = values.loads
    stock_initialize = stock.Options._initialize  # noqa: SLF001

    def initialize(options: Any) -> None:
        stock_initialize(options)
        # Most recipes do not read it: it must not be reported as unused.
        options.get(OPTION)

    def get(options: Any, option: str, default: Any = None, seen: Any = None) -> Any:
        value = _get(options, option, seen)
        return default if value is _MISSING else value

    def getitem(options: Any, option: str) -> Any:
        value = _get(options, option, None)
        if value is _MISSING:
            raise stock.MissingOption(f"Missing option: {options.name}:{option}")
        return value

    def setitem(options: Any, option: str, value: Any) -> None:
        try:
            options._data[option] = values.normalise(value)  # noqa: SLF001
        except TypeError as error:
            raise ProfileError(f"[{options.name}] {option}: {error}") from error

    def sub(options: Any, template: str, seen: Any) -> str:
        pieces = options._template_split(template)  # noqa: SLF001
        pieces[1::2] = [_embed(options, piece, seen) for piece in pieces[1::2]]
        return "".join(pieces)

    def dosub(options: Any, option: str, text: str) -> None:
        value = _substitute(options, text, [(options.name, option)])
        options._cooked[option] = _as_text(value)  # noqa: SLF001

    def copy_(options: Any) -> dict[str, Any]:
        result = {
            option: _from_text(options, option, text)
            for option, text in {**options._raw, **options._cooked}.items()  # noqa: SLF001
        }
        return result | copy.deepcopy(options._data)  # noqa: SLF001

    options_class: Any = stock.Options
    options_class._initialize = initialize  # noqa: SLF001
    options_class.get = get
    options_class.__getitem__ = getitem
    options_class.__setitem__ = setitem
    options_class._sub = sub  # noqa: SLF001
    options_class._dosub = dosub  # noqa: SLF001
    options_class.copy = copy_


def save_typed_options() -> None:
    """Write typed values to ``.installed.cfg`` and to sections that recipes make."""
    module: Any = stock
    stock_save_option = stock._save_option  # noqa: SLF001
    stock_setitem = stock.Buildout.__setitem__

    def save_option(option: str, value: Any, file: Any) -> None:
        stock_save_option(option, _as_text(value), file)

    def setitem(buildout: Any, name: str, data: Any) -> None:
        stock_setitem(buildout, name, {option: _as_text(data[option]) for option in data})

    module._save_option = save_option  # noqa: SLF001
    module.Buildout.__setitem__ = setitem


def keep_installed_whole() -> None:
    """Let a crash leave the old or the new ``.installed.cfg``: half of one stops each later run.

    What it says to be installed is on the disk before: a loss of power would leave empty files.
    """

    def write(buildout: Any, text: str) -> None:
        installed = Path(buildout["buildout"]["installed"])
        sync_file_systems([installed.parent])
        write_atomically(installed, text)

    def save(buildout: Any, installed: Any) -> None:
        if not buildout["buildout"]["installed"]:
            return
        sections = []
        for name in ("buildout", *installed["buildout"]["parts"].split()):
            section = io.StringIO()
            stock._save_options(name, installed[name], section)  # noqa: SLF001
            sections.append(section.getvalue())
        write(buildout, "\n".join(sections))

    def update(buildout: Any, **options: Any) -> None:
        text = io.StringIO()
        text.write(Path(buildout["buildout"]["installed"]).read_text())
        text.write("\n[buildout]\n")
        for option, value in options.items():
            stock._save_option(option, value, text)  # noqa: SLF001
        write(buildout, text.getvalue())

    buildout_class: Any = stock.Buildout
    buildout_class._save_installed_options = save  # noqa: SLF001
    buildout_class._update_installed = update  # noqa: SLF001


def keep_shared_parts_whole() -> None:
    """Let slapos.recipe.build and .cmmi declare a shared part complete when it is on the disk."""
    stock_install = Shared.install

    def install(recipe: Any, update: bool = False) -> Any:
        if recipe.signature is not None:
            # It is what writes the part; the mark is written after it.
            recipe._install = _synced(recipe._install, Path(recipe.location))  # noqa: SLF001
        return stock_install(recipe, update)

    shared_class: Any = Shared
    shared_class.install = install


def _synced(make: Any, location: Path) -> Any:
    """Return a function that makes a part and then writes its file system down."""

    def make_and_sync() -> Any:
        made = make()
        sync_file_systems([location])
        return made

    return make_and_sync


def sign_recipes_by_version() -> None:
    """Sign a part by the versions of its recipe's distributions.

    Stock buildout takes an installed ``.dist-info`` for a source checkout and reads all of
    site-packages at each run: over a second, and a new signature whenever bytecode or an unrelated
    package appears, which would install every part again.
    """

    def signature(distributions: Any) -> list[str]:
        return sorted({f"{dist.project_name}-{dist.version}" for dist in distributions})

    module: Any = stock
    module._dists_sig = signature  # noqa: SLF001


def explain_checksums() -> None:
    """Say what to do about a file whose checksum is not the one that the profile gives."""
    stock_call = download.Download.__call__

    def call(self: Any, url: str, md5sum: str | None = None, path: str | None = None) -> Any:
        try:
            return stock_call(self, url, md5sum, path)
        except download.ChecksumError as error:
            raise ProfileError(f"{error} (expected {md5sum})", _checksum_remedy(url)) from error

    download_class: Any = download.Download
    download_class.__call__ = call


def _checksum_remedy(url: str) -> str:
    """Return what to do, which for a file of the profiles differs from a download."""
    if "://" in url:
        return "do not build from these bytes: compare the checksum with the one upstream gives"
    return f"if you changed the file on purpose, run: update-hash {Path(url).parent}"


def stay_offline() -> None:
    """Ask no index in offline mode: stock buildout looks there before it says that it may not."""
    stock_obtain = easy_install.Installer._obtain  # noqa: SLF001

    def obtain(installer: Any, requirement: Any, source: Any = None) -> Any:
        if installer._dest is None:  # noqa: SLF001
            return None
        return stock_obtain(installer, requirement, source)

    installer_class: Any = easy_install.Installer
    installer_class._obtain = obtain  # noqa: SLF001


def _get(options: Any, option: str, seen: Any) -> Any:
    """Return an option's typed value, or _MISSING."""
    data = options._data  # noqa: SLF001
    if option not in data:
        if option in options._cooked:  # noqa: SLF001
            value = _from_text(options, option, options._cooked[option])  # noqa: SLF001
        elif option in options._raw:  # noqa: SLF001
            value = _cook(options, option, seen)
        else:
            return _MISSING
        data[option] = value
    return copy.deepcopy(data[option])


def _cook(options: Any, option: str, seen: Any) -> Any:
    """Substitute the references of an option's raw text."""
    text = options._raw[option]  # noqa: SLF001
    if "${" not in text:
        return _from_text(options, option, text)
    key = options.name, option
    path = [] if seen is None else seen
    if key in path:
        circle = " -> ".join(":".join(place) for place in [*path, key])
        raise ProfileError(f"Circular reference in substitutions: {circle}")
    path.append(key)
    try:
        return _substitute(options, text, path)
    finally:
        path.pop()


def _substitute(options: Any, text: str, seen: Any) -> Any:
    """Return the value of the one reference that text is, or text with all references filled in."""
    pieces = options._template_split(text)  # noqa: SLF001
    if len(pieces) == 3 and not pieces[0] and not pieces[2]:  # noqa: PLR2004
        return _refer(options, pieces[1], seen)
    return "$$".join(options._sub(piece, seen) for piece in text.split("$$"))  # noqa: SLF001


_stock_sub = stock.Options._sub  # noqa: SLF001


def _refer(options: Any, reference: str, seen: Any) -> Any:
    """Return what a reference names; stock buildout says what is wrong with a bad one."""
    if options._valid(reference):  # noqa: SLF001
        section, option = reference[2:-1].split(":")
        value = _get(options.buildout[section or options.name], option, seen)
        if value is not _MISSING:
            return value
    return _stock_sub(options, reference, seen)


def _embed(options: Any, reference: str, seen: Any) -> str:
    """Return the text of a reference within a longer text."""
    try:
        return values.embed(_refer(options, reference, seen))
    except TypeError as error:
        raise ProfileError(
            f"[{options.name}] {reference}: {error}",
            "let the option be this reference alone, or render the value with a template",
        ) from error


def _as_text(value: Any) -> str:
    """Write a value for a file; text that only looks typed is protected."""
    if isinstance(value, str) and not value.startswith(values.MAGIC):
        return value
    return values.dumps(value)


def _from_text(options: Any, option: str, text: str) -> Any:
    """Read a value from a file."""
    if not text.startswith(values.MAGIC):
        return text
    try:
        return values.loads(text)
    except ValueError as error:
        raise ProfileError(f"[{options.name}] {option}: {error}") from error
