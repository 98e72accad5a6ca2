# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins and pages of a Python index."""

import json

import pytest
from packaging.version import Version

from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.recipe import index


@pytest.mark.parametrize("requirement", ["Tiny_Tool==1.0", "tiny-tool == 1.0.0"])
def test_a_pin_gives_name_and_version(requirement):
    assert index.parse_pin(requirement) == ("tiny-tool", Version("1"))


@pytest.mark.parametrize("requirement", ["tiny", "tiny>=1", "tiny==1.*", "tiny[a]==1", "=", ""])
def test_a_requirement_that_is_no_pin_is_refused(requirement):
    with pytest.raises(ProfileError, match="not of the form NAME==VERSION"):
        index.parse_pin(requirement)


def test_both_forms_of_a_page_give_the_same_links():
    link = "../../files/tiny-1.0.tar.gz"
    html = f'<a href="{link}#sha256=00">tiny</a><a>no link</a>'.encode()
    page = {"files": [{"filename": "tiny-1.0.tar.gz", "url": link}]}
    expected = [("tiny-1.0.tar.gz", link)]
    assert index._links(html, "text/html") == expected
    assert index._links(json.dumps(page).encode(), index._JSON) == expected
