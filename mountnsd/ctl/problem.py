# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the user is told when something does not work."""

FAILURE = 1
TROUBLE = 2  # of the verbs whose 1 is an answer
NOT_EXECUTABLE = 126
NOT_FOUND = 127


class Problem(Exception):
    """An end of mountnsctl that the user shall read about.

    Arguments: message: what happened and what to do next; status: the exit status.
    """

    def __init__(self, message: str, status: int = FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
