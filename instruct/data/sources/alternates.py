"""One data set from the first available of several sources, local ones before downloads."""

import dataclasses
from collections.abc import Iterator

from instruct.data.spec import Source
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Alternates:
    """Sources of the same records, best first; all splits come from the same one.

    Attributes:
        sources: at least one; `splits` are those that all of them have.
    """

    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("Alternates needs at least one source")
        if not self.splits:
            have = "; ".join(", ".join(source.splits) for source in self.sources)
            raise UserError(f"the alternative sources have no split in common: {have}")

    @property
    def splits(self) -> tuple[str, ...]:
        others = [set(source.splits) for source in self.sources[1:]]
        return tuple(split for split in self.sources[0].splits if all(split in o for o in others))

    def fingerprint(self, workspace: Workspace) -> str:
        """The chosen source's number, class and fingerprint; "absent" if none is available."""
        chosen = self._chosen(workspace)
        if chosen is None:
            return "absent"
        number = self.sources.index(chosen)
        return f"{number}-{type(chosen).__name__}-{chosen.fingerprint(workspace)}"

    def available(self, workspace: Workspace) -> str | None:
        """None, or why each of the sources cannot be read."""
        reasons = []
        for number, source in enumerate(self.sources, start=1):
            reason = source.available(workspace)
            if reason is None:
                return None
            reasons.append(f"  {number}. {reason}")
        return "\n".join(["none of these sources is available; one of them is enough:", *reasons])

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Records of the first available source, chosen at the call and not at the first record.

        Raises:
            KeyError: no such split. UserError: no source is available.
        """
        if split not in self.splits:
            raise KeyError(split)
        chosen = self._chosen(workspace)
        if chosen is None:
            raise UserError(str(self.available(workspace)))
        return chosen.records(workspace, split)

    def _chosen(self, workspace: Workspace) -> Source | None:
        available = [source for source in self.sources if source.available(workspace) is None]
        # Where downloads are allowed, a source that is not downloaded yet is available too.
        local = (s for s in available if not s.fingerprint(workspace).endswith("absent"))
        return next(local, next(iter(available), None))
