"""One network, several spellings: the names that torchvision, MONAI and old checkpoints give to the
same tensors of a DenseNet (Huang et al. 2017), and the wrappers that prefix all names.

torchvision:      features.denseblock1.denselayer1.norm1.weight          classifier.weight
old torchvision:  features.denseblock1.denselayer1.norm.1.weight         classifier.weight
MONAI:            features.denseblock1.denselayer1.layers.norm1.weight   class_layers.out.weight
a head with a sigmoid behind it:                                         classifier.0.weight
"""

from __future__ import annotations

import re
from collections.abc import Collection

from lucency.config_faults import shown
from lucency.errors import ModelError

_LAYER = re.compile(r"(denselayer\d+)\.(?:layers\.)?(norm|conv)\.?([12])\.")
_HEAD = re.compile(r"(^|\.)(?:class_layers\.out|classifier\.0)\.(weight|bias)$")


def canonical(name: str) -> str:
    """The torchvision spelling of a DenseNet tensor's name; any other name as it is."""
    return _HEAD.sub(r"\1classifier.\2", _LAYER.sub(r"\1.\2\3.", name))


def match_names(found: Collection[str], expected: Collection[str]) -> dict[str, str]:
    """For each name found in a file, the network's own name of that tensor.

    found: names in the file, all perhaps behind one prefix ("module.", "model.",
    "module.densenet121.", …). expected: names in the network's state dict, in its order. A name
    that fits nothing keeps its spelling, without the prefix. Raises ModelError if two names of the
    file mean the same tensor.
    """
    own = {canonical(name): name for name in expected}
    prefix = _shared_prefix(found, next(iter(own), ""))
    matched: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name in found:
        bare = name.removeprefix(prefix)
        target = own.get(canonical(bare), bare)
        if target in seen:
            raise ModelError(
                f"Tensors {shown(seen[target])!r} and {shown(name)!r} mean the same one; a file of "
                "weights must hold each once."
            )
        seen[target] = name
        matched[name] = target
    return matched


def _shared_prefix(found: Collection[str], first: str) -> str:
    """What stands before every name of the file, judged by the network's first tensor."""
    spelled = {name: canonical(name) for name in found}
    if not first or first in spelled.values():
        return ""
    ends = [name for name, plain in spelled.items() if plain.endswith(f".{first}")]
    if not ends:
        return ""
    # A network inside a network may end alike: the outermost has the shortest name.
    outermost = spelled[min(ends, key=len)]
    prefix = outermost.removesuffix(first)
    return prefix if all(name.startswith(prefix) for name in found) else ""
