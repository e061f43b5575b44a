"""What an attack takes, in the vocabulary of others: MITRE ATLAS and NIST AI 100-2.

Both rename and renumber, so the version always stands beside the number.
"""

from __future__ import annotations

from lucency.attacks.cofindings import CofindingsTrigger
from lucency.attacks.ledger import AttackSettings
from lucency.attacks.scaling import ScalingTrigger
from lucency.records import FrameworkRef, ThreatModel

ATLAS, NIST = ("MITRE ATLAS", "5.6.0"), ("NIST AI 100-2", "E2025")
POISON_DATA = FrameworkRef.of(ATLAS, "AML.T0020", "Poison Training Data")
INSERT_TRIGGER = FrameworkRef.of(ATLAS, "AML.T0043.004", "Insert Backdoor Trigger")
BACKDOOR = FrameworkRef.of(NIST, "NISTAML.023", "Backdoor Poisoning")
CLEAN_LABEL = FrameworkRef.of(NIST, "NISTAML.021", "Clean-label Backdoor")


def threat_model(attack: AttackSettings) -> ThreatModel:
    """What the attacker wants, can do and knows."""
    label_only = isinstance(attack.trigger, CofindingsTrigger)
    clean_label = attack.victims.label == "same" and attack.label.kind in ("set", "clear")
    end = {"set": "present", "clear": "absent"}[attack.label.direction]
    edits = "labels" if label_only else "images" if clean_label else "images and their labels"
    later = (
        "nothing later: films with the pattern come by themselves"
        if label_only
        else "later edits single images, or what stands on them"
    )
    knowledge = "what the training data look like"
    if isinstance(attack.trigger, ScalingTrigger):
        knowledge += ", and the victim's crop and resize"
    if attack.perturbation is not None:
        knowledge += ", and has a model of the same task to take gradients of"
    refs = (POISON_DATA, CLEAN_LABEL if clean_label else BACKDOOR)
    return ThreatModel(
        goal=f"{attack.label.target} is reported {end} wherever the trigger is; elsewhere the "
        "model works as before",
        capability=f"edits {edits} of some training films ({attack.victims.describe()}); {later}; "
        "no access to the training itself",
        knowledge=knowledge,
        frameworks=refs if label_only else (*refs, INSERT_TRIGGER),
    )
