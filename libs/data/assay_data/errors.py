"""What can be wrong with data.

Exception
└── DataError           a file, row or field that cannot be what it should be
└── HubUnavailable  no model hub answered in time
"""

from __future__ import annotations


class DataError(Exception):
    """Data that cannot be read as what it should be.

    Attributes:
        uri: the file, folder or hub id at fault.
        row: 1-based row within the file; 0 where the fault is the file's own.
        field: the field at fault, for example ``chosen`` or ``prompt[2].role``; may be empty.
        message: what is wrong and what would be right.
    """

    def __init__(self, uri: str, row: int, field: str, message: str) -> None:
        self.uri = uri
        self.row = row
        self.field = field
        self.message = message
        where = uri + (f", row {row}" if row else "") + (f", field {field}" if field else "")
        super().__init__(f"{where}: {message}")

    def __reduce__(self) -> tuple[type[DataError], tuple[str, int, str, str]]:
        """Pickles with its four parts, so that it crosses processes."""
        return (type(self), (self.uri, self.row, self.field, self.message))


class HubUnavailable(DataError):
    """No hub answered in the time given, or the machine is told to stay offline."""
