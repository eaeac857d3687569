"""A model of the few API calls the webhook makes, with its rules: names are unique, old resourceVersions conflict."""

from collections.abc import AsyncIterator, Callable, Mapping
from copy import deepcopy

from berth.kube.client import Change, Listing, Object, Reading
from berth.kube.errors import AlreadyExists, Conflict, KubeError, NotFound


class FakeApi:
    """Objects by path. `interrupt` is called before each write, as another client that comes in between."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[str] = []
        self.interrupt: Callable[[], None] = lambda: None
        self.failure: KubeError | None = None
        self._version = 0

    def store(self, path: str, body: Object) -> Object:
        self._version += 1
        stored = deepcopy(body)
        stored.setdefault("metadata", {})["resourceVersion"] = str(self._version)
        self.objects[path] = stored
        return deepcopy(stored)

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        if self.failure is not None:
            raise self.failure
        if path not in self.objects:
            raise NotFound(404, "NotFound", path)
        return deepcopy(self.objects[path])

    async def create(self, path: str, body: Object) -> Object:
        self.interrupt()
        place = f"{path}/{body['metadata']['name']}"
        if place in self.objects:
            raise AlreadyExists(409, "AlreadyExists", place)
        return self._write("create", place, body)

    async def replace(self, path: str, body: Object) -> Object:
        self._must_match(path, body)
        return self._write("replace", path, body)

    async def patch(self, path: str, body: Object) -> Object:
        self._must_match(path, body)
        return self._write("patch", path, {**self.objects[path], **body})

    async def delete(self, path: str, *, uid: str | None = None, version: str | None = None) -> None:
        del self.objects[path]

    async def list(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        metadata: bool = False,
        reading: Reading | None = None,
    ) -> Listing:
        if self.failure is not None:
            raise self.failure
        found = [deepcopy(each) for place, each in self.objects.items() if place.startswith(path + "/")]
        return Listing(found, "1").read(reading)

    async def watch(
        self, path: str, version: str, params: Mapping[str, str] | None = None, *, metadata: bool = False
    ) -> AsyncIterator[Change]:
        raise NotImplementedError
        yield

    def _must_match(self, path: str, body: Object) -> None:
        self.interrupt()
        if path not in self.objects:
            raise NotFound(404, "NotFound", path)
        if body["metadata"]["resourceVersion"] != self.objects[path]["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", path)

    def _write(self, verb: str, path: str, body: Object) -> Object:
        self.writes.append(verb)
        return self.store(path, body)
