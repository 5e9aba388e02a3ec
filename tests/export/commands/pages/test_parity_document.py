import dataclasses

import pytest

from tests.export.commands.pages.parity_reports import document, output


@pytest.mark.parametrize(("error", "verdict"), [(2e-7, "agrees"), (2e-3, "differs")])
def test_verdict_is_that_of_the_report(error, verdict):
    assert document(output(error)).verdict == verdict


def test_file_that_was_not_written_has_a_name():
    made = document()
    assert dataclasses.replace(made, file=None).file_name == made.file.name
