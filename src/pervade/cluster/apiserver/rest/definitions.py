"""The life of CustomResourceDefinitions: serve what they define from the moment they are stored, clean up behind them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from pervade.cluster.apiserver.kinds import custom
from pervade.cluster.apiserver.kinds.custom import FINALIZER, Compile
from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Kind
from pervade.cluster.apiserver.rest import delete, metadata, present, status, write
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.info import Info
from pervade.cluster.apiserver.rest.status import StatusError
from pervade.cluster.apiserver.store.log import DELETED
from pervade.cluster.apiserver.store.state import Subscription

log = logging.getLogger(__name__)
RETRY_SECONDS = 5.0
"""After a webhook or a full queue kept a definition from being cleaned up."""
TABLE = "apiextensions.k8s.io/customresourcedefinitions"


class Definitions:
    """Keeps the registry in step with the stored definitions.

    It learns of a definition inside the commit, before the caller has the answer: a new kind is in
    discovery at once. A definition that is deleted first loses its objects, then goes.
    """

    def __init__(
        self,
        api: Api,
        user: object,
        *,
        compile_version: Compile | None = None,
        check_schema: Callable[[JSON, str], list[Cause]] | None = None,
    ) -> None:
        self.api, self.user = api, user
        self.compile_version, self.check_schema = compile_version, check_schema
        self._live: Subscription | None = None
        self._instances: dict[str, Subscription] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._again: dict[str, bool] = {}

    def start(self) -> None:
        """Serve what is stored and follow changes."""
        self._live = self.api.state.listen(TABLE)
        self._live.on_event = self._changed
        for entry in self.api.state.all(TABLE):
            self._take(present.parse(entry.value))

    async def stop(self) -> None:
        for one in [self._live, *self._instances.values()]:
            if one is not None:
                one.close()
        self._live = None
        for task in tuple(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def prepare(self, new: JSON, old: JSON | None) -> None:
        """Last step before a definition is stored: its finalizer and status."""
        meta = new["metadata"]
        if old is None:
            meta["finalizers"] = [*dict.fromkeys([*(meta.get("finalizers") or ()), FINALIZER])]
        if causes := self._schema_causes(new, old):
            raise status.invalid(self._kind(), meta["name"], causes)
        custom.complete_status(new, old, self._taken(meta["name"]), metadata.now())

    def _schema_causes(self, new: JSON, old: JSON | None) -> list[Cause]:
        """What keeps the schemas of a definition from being served; those that did not change are served already."""
        if self.check_schema is None:
            return []
        before = {v["name"]: v.get("schema") for v in (old or {}).get("spec", {}).get("versions") or ()}
        return [
            cause
            for i, version in enumerate(new["spec"]["versions"])
            if version["name"] not in before or before[version["name"]] != version.get("schema")
            for cause in self.check_schema(version, f"spec.versions[{i}].schema.openAPIV3Schema")
        ]

    def _taken(self, definition: str) -> custom.Clash:
        def taken(group: str, names: JSON) -> tuple[str, str]:
            for one in self.api.registry:
                if one.group == group and (one.custom is None or one.custom.definition != definition):
                    reason, why = custom.clash(names, one)
                    if why:
                        return reason, why
            return "", ""

        return taken

    def _changed(self) -> None:
        assert self._live is not None
        while events := self._live.take():
            for event in events:
                obj = event.objects()[0]
                if event.action == DELETED:
                    self.api.registry.drop_custom(obj["metadata"]["name"])
                    if watching := self._instances.pop(obj["metadata"]["name"], None):
                        watching.close()
                    self._start(self._look_again(obj["spec"]["group"]), "names are free")
                else:
                    self._take(obj)
        if self._live.overrun:
            # More definitions at once than the ring holds: take all of them again.
            self._live.close()
            self.start()

    def _take(self, definition: JSON) -> None:
        name = definition["metadata"]["name"]
        try:
            kinds = custom.kinds_of(definition, self.compile_version)
        except Exception:
            log.exception("a stored definition cannot be served", extra={"definition": name})
            kinds = []
        self.api.registry.put_custom(name, kinds)
        if definition["metadata"].get("deletionTimestamp") and FINALIZER in (
            definition["metadata"].get("finalizers") or ()
        ):
            self._clean(name)

    def _clean(self, name: str) -> None:
        """Start the clean-up of a definition, or tell the running one to look again."""
        if name in self._again:
            self._again[name] = True
            return
        self._again[name] = False
        self._start(self._empty(name), f"empty {name}")

    def _retry(self, name: str) -> None:
        entry = self.api.state.latest(TABLE, "", name) if self._live is not None else None
        if entry is not None and present.parse(entry.value)["metadata"].get("deletionTimestamp"):
            self._clean(name)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _look_again(self, group: str) -> None:
        """Names of a group became free: definitions that wanted them are served now."""
        kind = self._kind()
        for entry in self.api.state.all(TABLE):
            one = present.parse(entry.value)
            if one["spec"]["group"] != group or custom.established(one):
                continue
            info = Info("", "update", kind.group, kind.version, kind.plural, "", entry.name)
            try:
                await write.modify(self.api, Request(info, kind, {}, self.user), lambda obj: obj)
            except StatusError as error:
                if error.code != 404:
                    log.warning(
                        "a definition waits for its names",
                        extra={"definition": entry.name, "error": error.message},
                    )

    def _kind(self) -> Kind:
        found = self.api.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        assert found is not None
        return found

    async def _empty(self, name: str) -> None:
        """Delete all objects of a definition; then let it go. Waits for objects with finalizers through their events."""
        try:
            while True:
                self._again[name] = False
                left = await self._delete_instances(name)
                if not left:
                    await self._release(name)
                    break
                if not self._again[name]:
                    break
        except StatusError as error:
            log.warning(
                "a definition cannot be cleaned up yet", extra={"definition": name, "error": error.message}
            )
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._retry, name)
        finally:
            self._again.pop(name, None)

    async def _delete_instances(self, name: str) -> int:
        entry = self.api.state.latest(TABLE, "", name)
        if entry is None:
            return 0
        spec = present.parse(entry.value)["spec"]
        group, plural = spec["group"], spec["names"]["plural"]
        table = f"{group}/{plural}"
        kinds = [k for k in self.api.registry if k.table == table]
        if not kinds:
            return 0
        if name not in self._instances:
            watching = self._instances[name] = self.api.state.listen(table)
            watching.on_event = lambda: self._instance_changed(name, watching)
        for one in self.api.state.all(table):
            await self._delete_one(kinds[0], one.namespace, one.name)
        return len(self.api.state.all(table))

    def _instance_changed(self, name: str, watching: Subscription) -> None:
        gone = any(event.action == DELETED for event in watching.take())
        if gone or watching.overrun:
            self._clean(name)

    async def _delete_one(self, kind: Kind, namespace: str, name: str) -> None:
        info = Info("", "delete", kind.group, kind.version, kind.plural, namespace, name)
        try:
            await delete.delete(self.api, Request(info, kind, {}, self.user), {})
        except StatusError as error:
            if error.code != 404:
                raise

    async def _release(self, name: str) -> None:
        kind = self._kind()
        info = Info("", "update", kind.group, kind.version, kind.plural, "", name)

        def without(obj: JSON) -> JSON:
            kept = [f for f in obj["metadata"].get("finalizers") or () if f != FINALIZER]
            return {**obj, "metadata": {**obj["metadata"], "finalizers": kept}}

        try:
            await write.modify(self.api, Request(info, kind, {}, self.user), without)
        except StatusError as error:
            if error.code != 404:
                raise
