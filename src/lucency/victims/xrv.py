"""What TorchXRayVision's published weights expect and return (Cohen et al. 2022, MIDL).

Its networks take one channel in [-1024, 1024]: pixels in [0, 1] minus 0.5, over 1/2048. Single-
source weights keep all 18 outputs and leave those untrained for which their source has no labels.
The package ends its forward pass in a sigmoid and `op_norm`, which moves each finding's operating
point to 0.5; here both are left out, so that outputs are logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from lucency.data.preprocess import InputContract
from lucency.errors import ModelError

PATHOLOGIES = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema",
    "Fibrosis", "Effusion", "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass",
    "Hernia", "Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip
"""`xrv.datasets.default_pathologies`: the outputs in order."""
RANGE = 1024.0
IGNORED = ("op_threshs",)
"""Operating points in a state dict: thresholds, no weights."""

_CHEXPERT = (2, 5, 6, 9, 11, 12, 13)


@dataclass(frozen=True)
class XrvWeights:
    """size: pixels at the network's input. untrained: outputs without meaning."""

    size: int = 224
    untrained: tuple[int, ...] = ()

    @property
    def findings(self) -> tuple[str, ...]:
        """What the card's `findings` should say: 18 names, "" where the output is untrained."""
        return tuple("" if i in self.untrained else p for i, p in enumerate(PATHOLOGIES))

    def require(self, name: str, contract: InputContract, n_outputs: int) -> None:
        """Raise ModelError for an input or a number of outputs that these weights do not have."""
        if n_outputs != len(PATHOLOGIES):
            raise ModelError(
                f"xrv:{name} has {len(PATHOLOGIES)} outputs, got {n_outputs} findings; give "
                f"findings = {list(self.findings)}."
            )
        if (contract.channels, contract.size) != (1, self.size):
            raise ModelError(
                f"xrv:{name} takes 1 channel of {self.size} px, got {contract.channels} of "
                f"{contract.size} px; correct [input] channels and size."
            )
        black, white = ((v - contract.mean[0]) / contract.std[0] for v in (0.0, 1.0))
        if abs(black + RANGE) > 1 or abs(white - RANGE) > 1:
            raise ModelError(
                f"xrv:{name} takes grey values in [-1024, 1024], got [{black:g}, {white:g}]; set "
                "[input] mean = [0.5] and std = [0.00048828125], which is 1/2048."
            )

    def require_findings(self, name: str, findings: tuple[str, ...]) -> None:
        """Raise ModelError if an output is named that is another's, or is untrained."""
        for index, (said, known) in enumerate(zip(findings, self.findings, strict=True)):
            if said and said != known:
                meant = f"{known!r}" if known else 'untrained in these weights, so ""'
                raise ModelError(
                    f"xrv:{name}: output {index} is {meant}, got {said!r} in findings; blank names "
                    "are skipped."
                )


XRV_WEIGHTS = {
    "densenet121-res224-all": XrvWeights(),
    "densenet121-res224-nih": XrvWeights(untrained=(14, 15, 16, 17)),
    "densenet121-res224-pc": XrvWeights(untrained=(14, 16, 17)),
    "densenet121-res224-chex": XrvWeights(untrained=_CHEXPERT),
    "densenet121-res224-rsna": XrvWeights(untrained=(*range(8), *range(9, 16), 17)),
    "densenet121-res224-mimic_nb": XrvWeights(untrained=_CHEXPERT),
    "densenet121-res224-mimic_ch": XrvWeights(untrained=_CHEXPERT),
    "resnet50-res512-all": XrvWeights(size=512),
}
"""Names as torchxrayvision's `weights=` has them. resnet50-res512-all: its two outputs without an
operating point (14, 17) are named by the package all the same, and are kept."""
