"""Names of tumour classes: their fixed order, their aliases and how people read them."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

# Spellings met in public data sets, beside the class name itself. Case, blanks, `_` and `-` do not count.
_KNOWN_ALIASES: dict[str, tuple[str, ...]] = {
    "glioma": ("gliomas", "glioma tumor", "glioma tumour"),
    "meningioma": ("meningiomas", "meningioma tumor", "meningioma tumour"),
    "notumor": ("no tumour", "no tumors", "no tumours", "non tumor", "non tumour", "normal", "healthy"),
    "pituitary": ("pituitary tumor", "pituitary tumour", "pituitary adenoma"),
}
_DISPLAY_NAMES = {
    "glioma": "Glioma",
    "meningioma": "Meningioma",
    "notumor": "No tumour",
    "pituitary": "Pituitary",
}


class ClassSetError(ValueError):
    """The classes of a run contradict each other, or a name is none of them."""


def fold_name(name: str) -> str:
    """Reduce a name to what counts in comparisons: no case, blanks, `_` or `-`.

    Example:
        >>> fold_name("No-Tumor ")
        'notumor'
    """
    # Composed form, because macOS hands out decomposed file names.
    return re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFKC", name).casefold())


@dataclass(frozen=True)
class ClassSet:
    """The classes of a run in their fixed order; a class's place is its index in every model output.

    Args:
        names: Class names, at least two. A name of the default set brings its usual aliases along.
        aliases: Further spellings, one tuple for each name in the same order; empty for none.

    Raises:
        ClassSetError: Fewer than two names, an empty one, or a spelling that two classes claim.

    Example:
        >>> DEFAULT_CLASSES.resolve("Glioma_Tumour"), DEFAULT_CLASSES.index("notumor")
        ('glioma', 2)
    """

    names: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise ClassSetError(
                f"A class set needs at least two classes, got {len(self.names)}: {list(self.names)}. "
                "List every class in ingestion.classes."
            )
        if self.aliases and len(self.aliases) != len(self.names):
            raise ClassSetError(
                f"Expected aliases for {len(self.names)} classes, got {len(self.aliases)}. "
                "Give one tuple of aliases for each class, empty where there are none."
            )
        _ = self._class_of_spelling  # built now, so that a clash shows where the set is made

    @classmethod
    def from_entries(cls, entries: Iterable[str | Mapping[str, Iterable[str]]]) -> ClassSet:
        """Make a class set from `ingestion.classes`: each entry a name, or a name with its aliases.

        Example:
            >>> ClassSet.from_entries(["normal", {"tumour": ["yes", "tumor"]}]).resolve("YES")
            'tumour'
        """
        pairs: list[tuple[str, tuple[str, ...]]] = []
        for entry in entries:
            if isinstance(entry, str):
                pairs.append((entry, ()))
            elif isinstance(entry, Mapping):
                pairs.extend(
                    (name, (aliases,) if isinstance(aliases, str) else tuple(aliases))
                    for name, aliases in entry.items()
                )
            else:
                raise ClassSetError(
                    f"An entry of ingestion.classes is a name or a mapping of a name to its aliases, "
                    f"got {entry!r}. Example: [normal, {{tumour: [tumor, yes]}}]."
                )
        return cls(tuple(name for name, _ in pairs), tuple(aliases for _, aliases in pairs))

    @cached_property
    def _class_of_spelling(self) -> dict[str, str]:
        """Class name for every folded spelling; what the user wrote goes before what we know."""
        spellings: dict[str, str] = {}
        for name, aliases in zip(self.names, self.aliases or ((),) * len(self.names), strict=True):
            for position, spelling in enumerate((name, *aliases)):
                key = fold_name(spelling)
                if not key:
                    raise ClassSetError(f"Class names and aliases must not be empty, got {spelling!r}.")
                other = spellings.setdefault(key, name)
                if other != name or (position == 0 and self.names.count(name) > 1):
                    raise ClassSetError(
                        f"{spelling!r} stands for two classes, {other!r} and {name!r} (case, blanks, '_' and "
                        "'-' do not count). Give every class its own names in ingestion.classes."
                    )
        for name in self.names:
            for spelling in _KNOWN_ALIASES.get(fold_name(name), ()):
                spellings.setdefault(fold_name(spelling), name)
        return spellings

    def resolve(self, name: str) -> str | None:
        """Class name that a folder name or a table's label stands for, or None."""
        return self._class_of_spelling.get(fold_name(name))

    def nearest(self, name: str) -> str | None:
        """Class name whose spelling comes closest to a mistyped one, or None when nothing is close."""
        close = difflib.get_close_matches(fold_name(name), list(self._class_of_spelling), n=1)
        return self._class_of_spelling[close[0]] if close else None

    def index(self, name: str) -> int:
        """Index of a class in model outputs, by its name or an alias.

        Raises:
            ClassSetError: The name is of no class; the message names the nearest.
        """
        resolved = self.resolve(name)
        if resolved is None:
            nearest = self.nearest(name)
            hint = f" Did you mean {nearest!r}?" if nearest else ""
            raise ClassSetError(f"{name!r} is none of the classes {', '.join(self.names)}.{hint}")
        return self.names.index(resolved)

    def display(self, name: str) -> str:
        """The class name as a person reads it, for instance "No tumour"."""
        known = _DISPLAY_NAMES.get(fold_name(name))
        return known or re.sub(r"[\s_]+", " ", name).strip().capitalize()

    def display_names(self) -> dict[str, str]:
        """All class names in order, each as a person reads it."""
        return {name: self.display(name) for name in self.names}


DEFAULT_CLASSES = ClassSet(("glioma", "meningioma", "notumor", "pituitary"))
