"""What can go wrong between Berth and the Kubernetes API.

KubeError
├── BadConfiguration      a kubeconfig, certificate or token that cannot be used: names file and field
├── Unknown               no answer, or one that does not tell whether a write was done: read before going on
└── Answer                the API said no (status, reason, message)
    ├── BadRequest        400, 422: what was sent cannot be
    ├── Denied            401, 403
    ├── NotFound          404
    ├── AlreadyExists     409 on create
    ├── Conflict          409: a precondition (uid, resourceVersion) does not hold
    ├── Expired           410: the resourceVersion to watch from is too old: list again
    └── Busy              429: later

Rewound is none of these, for nothing is to be tried again: the API's history is not the one that was followed.
"""


class KubeError(Exception):
    """The root of the tree."""


class BadConfiguration(KubeError):
    """One sentence: which file, which field, what to do."""


class Unknown(KubeError):
    """The outcome of a request is not known. A write may still land."""


class Answer(KubeError):
    """The API answered, and not with success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class BadRequest(Answer):
    """400 or 422."""


class Denied(Answer):
    """401 or 403."""


class NotFound(Answer):
    """404."""


class AlreadyExists(Answer):
    """409 with reason AlreadyExists."""


class Conflict(Answer):
    """409 of any other reason."""


class Expired(Answer):
    """410."""


class Busy(Answer):
    """429."""


class Rewound(Exception):
    """etcd was restored: resourceVersions went back, or what is read contradicts what was seen. What is known is of
    another history."""


def answer(status: int, reason: str, message: str) -> KubeError:
    """The error that an HTTP status and the reason of a metav1.Status stand for."""
    if status == 409:
        return (AlreadyExists if reason == "AlreadyExists" else Conflict)(status, reason, message)
    kinds: dict[int, type[Answer]] = {
        400: BadRequest,
        401: Denied,
        403: Denied,
        404: NotFound,
        410: Expired,
        422: BadRequest,
        429: Busy,
    }
    if status >= 500:
        return Unknown(f"{status} {reason}: {message}")
    return kinds.get(status, Answer)(status, reason, message)
