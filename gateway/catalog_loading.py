"""The catalog, read from Triton at the start and kept as Triton's models are."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import metrics
from gateway.catalog import Catalog, Family, Fault, Variant, new_fingerprint
from gateway.errors import StatusError
from gateway.triton import ModelConfig, Triton
from gateway.triton_models import Key, Look, Seen, look
from gateway.variant_loading import export_of, is_marked, load_variant
from visiongate.command_error import CommandError

logger = logging.getLogger(__name__)

AGREEING_LOOKS = 3
"""How many looks in a row must see a change before it counts: one after the other, models come and go."""

_PAUSE_S = 0.25

Entry = Variant[Any] | Fault


class CatalogError(CommandError):
    """Nothing of the repository can be served. The message is for the operator, a sentence a fault."""


class NotReadyError(CatalogError):
    """The repository cannot be served yet."""


class CatalogLoader:
    """Fills a catalog and keeps it as Triton's models are. A fault of one variant concerns no other."""

    def __init__(self, triton: Triton, repository: Path, families: Sequence[Family[Any]]) -> None:
        self.catalog = Catalog()
        self._triton = triton
        self._repository = repository
        self._families = families
        self._members = [member for family in families for member in family.with_alternatives]
        # What the catalog is made of: each variant, and what was seen of its models when it was loaded.
        self._entries: dict[Key, Entry] = {}
        self._seen: dict[Key, Seen] = {}
        # What requests can choose among: the same, but for those that have the name of another.
        self._offered: dict[Key, Entry] = {}
        # What was seen instead, and in how many looks in a row.
        self._changes: dict[Key, tuple[Seen, int]] = {}

    async def load_when_ready(self, address: str, *, wait_s: float) -> None:
        """Load the catalog as soon as Triton answers at its address and has loaded its models.

        Raises NotReadyError after `wait_s` seconds, and CatalogError as `load` does.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        logged = ""
        while True:
            absence = await self._triton.absence()
            try:
                if absence:
                    raise NotReadyError(
                        f"no Triton answers at {address}: is it running there? --triton names another"
                    )
                await self.load()
                return
            except NotReadyError as error:
                reason = str(error)
            except StatusError as error:
                # Triton went away again between two requests.
                reason = f"Triton at {address}: {error.message}"
            detail = f" ({absence})" if absence else ""
            if loop.time() >= deadline:
                raise NotReadyError(reason + detail)
            if logged != reason:
                # As a warning, so that it is seen even if nobody has set up a log.
                logger.warning("waiting: %s%s", reason, detail)
                logged = reason
            await asyncio.sleep(_PAUSE_S)

    async def load(self) -> None:
        """Read and check what Triton has loaded of the families.

        Raises CatalogError if nothing of it can be served, NotReadyError if Triton is still loading a model,
        and StatusError if Triton does not list its models.
        """
        now = await self._look()
        if now.error is not None:
            raise now.error
        keys = list(now.keys(self._members))
        if name := next(filter(None, map(now.undecided, keys)), None):
            raise NotReadyError(f"Triton has not loaded and warmed up model {name} yet")
        for key in keys:
            await self._load(key, now.seen(key))
        if not any(isinstance(entry, Variant) for entry in self._entries.values()):
            known = ", ".join(role.name for member in self._members for role in member.roles)
            raise CatalogError(
                "; ".join(entry.sentence for entry in self._entries.values() if isinstance(entry, Fault))
                or f"Triton has loaded none of the models that visiongate serves: {known}"
            )
        self._renew_catalog()

    async def update(self) -> None:
        """Look at Triton's models again, and renew what has changed of the catalog.

        A change counts once AGREEING_LOOKS looks in a row have seen the same. Meanwhile, and while a model is
        on its way or Triton away, what is known stays. Variants that have not changed stay the same objects.
        """
        now = await self._look()
        for key in dict.fromkeys([*self._entries, *now.keys(self._members)]):
            if now.undecided(key):
                self._changes.pop(key, None)
                if now.is_away(key):
                    self._forget_answers(key)
            elif self._has_changed(key, now.seen(key)) or self._may_be_mended(key):
                await self._load(key, now.seen(key))
        self._renew_catalog()

    async def _look(self) -> Look:
        now = await look(self._triton, self._members, self._entries)
        self.catalog.set_ready(now.configs.keys())
        return now

    def _has_changed(self, key: Key, seen: Seen) -> bool:
        """Count a look, and return whether a change has been seen often enough."""
        before = self._seen.get(key, (None,) * len(seen))
        if seen == before:
            self._changes.pop(key, None)
            return False
        latest, count = self._changes.get(key, (seen, 0))
        count = count + 1 if latest == seen else 1
        self._changes[key] = seen, count
        return count >= AGREEING_LOOKS

    def _may_be_mended(self, key: Key) -> bool:
        """Return whether a fault may be one of the files beside the models, which may have changed."""
        complete = all(isinstance(part, ModelConfig) for part in self._seen.get(key, (None,)))
        return complete and key not in self._changes and isinstance(self._entries[key], Fault)

    async def _load(self, key: Key, seen: Seen) -> None:
        """Load a variant anew, or forget one of which Triton has nothing any more."""
        self._changes.pop(key, None)
        if not any(seen):
            del self._entries[key], self._seen[key]
            return
        before = self._entries.get(key)
        self._entries[key] = await load_variant(key, seen, self._repository, before.name if before else "")
        self._seen[key] = seen

    def _forget_answers(self, key: Key) -> None:
        """Give a variant a new fingerprint if it may come back with other weights and not tell."""
        entry = self._entries.get(key)
        if isinstance(entry, Variant) and not is_marked(self._seen[key]):
            self._entries[key] = replace(entry, fingerprint=new_fingerprint(""))

    def _renew_catalog(self) -> None:
        """Offer what has been loaded. Log what differs from what was offered before."""
        before = self._offered
        self._offered = {key: entry for family in self._families for key, entry in self._choices(family)}
        self.catalog.replace(
            (entry for entry in self._offered.values() if isinstance(entry, Variant)),
            (entry for entry in self._offered.values() if isinstance(entry, Fault)),
        )
        if before and (line := _difference(before, self._offered)):
            logger.info("the models have changed: %s", line, extra={"fields": self.exports})
            for key in before | self._offered:
                if change := _change(before.get(key), self._offered.get(key)):
                    metrics.RELOADS.labels("models", "failed" if change == "broken" else "ok").inc()
        if before != self._offered:
            self._describe()
        for key, entry in self._offered.items():
            if isinstance(entry, Fault) and entry.sentence != getattr(before.get(key), "sentence", ""):
                logger.error("%s", entry.sentence)

    @property
    def exports(self) -> dict[str, str]:
        """Of which export each model is that is served; empty where it does not tell."""
        return {
            model: export_of(config)
            for key, entry in self._offered.items()
            for model, config in zip(entry.triton_models.values(), self._seen[key], strict=True)
        }

    def _describe(self) -> None:
        """Say in the metrics what is offered."""
        exports = self.exports
        metrics.know("model", exports)
        metrics.describe_models(
            {"family": entry.family.name, "variant": entry.name, "model": model, "export": exports[model]}
            for entry in self._offered.values()
            for model in entry.triton_models.values()
        )

    def _choices(self, family: Family[Any]) -> Iterator[tuple[Key, Entry]]:
        """Yield the variants among which a family's requests choose by name, the default first."""
        order = family.with_alternatives
        keys = sorted(
            (key for key in self._entries if key[0] in order), key=lambda key: (order.index(key[0]), key[1])
        )
        # A plain name makes a variant the default. Without one it is the first: requests need not name one.
        default = next((key for key in keys if not key[1]), next(iter(keys), None))
        names: dict[str, Entry] = {}
        for key in sorted(keys, key=lambda key: key != default):
            entry = self._entries[key]
            if entry.is_default != (key == default):
                entry = self._entries[key] = replace(entry, is_default=key == default)
            other = names.setdefault(entry.name, entry)
            yield key, entry if other is entry else _duplicate(entry, other)


def _duplicate(entry: Entry, other: Entry) -> Fault:
    """Return the fault of a variant that has the name of another: requests choose by name alone."""
    if isinstance(entry, Fault):
        return entry
    first, second = (min(each.triton_models.values()) for each in (other, entry))
    return Fault(
        entry.family,
        entry.name,
        entry.is_default,
        entry.triton_models,
        f"models {first} and {second} are both variant {entry.name!r}: export one of them under another name",
    )


def _difference(before: Mapping[Key, Entry], after: Mapping[Key, Entry]) -> str:
    """Say in one line how two offers differ; empty if they do not."""
    words: dict[str, list[str]] = {}
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        label = f"{key[0].name} {(after.get(key) or before[key]).name}"
        if kind := _change(old, new):
            words.setdefault(kind, []).append(label)
        if old and new and new.is_default and not old.is_default:
            words.setdefault("now the default", []).append(label)
    return "; ".join(f"{kind}: {', '.join(labels)}" for kind, labels in words.items())


def _change(old: Entry | None, new: Entry | None) -> str:
    if new is None:
        return "gone"
    if isinstance(new, Fault):
        return "" if isinstance(old, Fault) and old.sentence == new.sentence else "broken"
    if old is None:
        return "new"
    if isinstance(old, Fault):
        return "mended"
    return "" if old.spec is new.spec else "loaded anew"


async def load(triton: Triton, repository: Path, families: Sequence[Family[Any]]) -> Catalog:
    """Return a catalog that is loaded once, as `CatalogLoader.load` does."""
    loader = CatalogLoader(triton, repository, families)
    await loader.load()
    return loader.catalog
