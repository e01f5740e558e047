"""Every attack, by family."""

from tests.attacks import (
    border,
    bundles,
    checkpoints,
    inputs,
    misleading,
    programs,
    sizes,
    unread,
)
from tests.attacks.attack import Attack

FAMILIES: dict[str, tuple[Attack, ...]] = {
    "content that nobody reads": unread.ATTACKS,
    "requests without a bound": sizes.ATTACKS,
    "programs in a bundle": programs.ATTACKS,
    "checkpoints and trait files": checkpoints.ATTACKS,
    "trust at the border": border.ATTACKS,
    "behaviour that misleads": misleading.ATTACKS,
    "bad input": inputs.ATTACKS,
    "bad bundles and disks": bundles.ATTACKS,
}
