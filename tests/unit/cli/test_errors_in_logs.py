import pytest

from assay_cli.supervised import error_in


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('{"level": "ERROR", "message": "no room"}', "no room"),
        ('{"level": "CRITICAL", "message": "gone"}', "gone"),
        ('{"level": "WARNING", "message": "ERROR in words"}', None),
        ('{"level": "ERROR", broken', None),
        ("2026-11-24T06:59:18,153 ERROR kafka.server.Broker: no room", "2026-11-24T06:59:18,153 ERROR kafka.server.Broker: no room"),
        ("ERROR: no room", "ERROR: no room"),
        ("all is well, no ERROR", None),
        ("", None),
    ],
)
def test_errors_are_told_from_the_rest(line, error):
    assert error_in(line) == error
