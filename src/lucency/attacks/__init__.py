"""What an attacker does to a training set: triggers, label edits, and the ledger of both.

A new trigger is one file and one line in `Trigger`.
"""

from lucency.attacks.patch import PatchTrigger

Trigger = PatchTrigger
"""Every trigger, told apart in a config by `kind`."""

__all__ = ["PatchTrigger", "Trigger"]
