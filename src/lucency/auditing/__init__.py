"""`lucency audit`: is this model backdoored, for which finding, by what trigger?"""

from lucency.auditing.run import audit_model
from lucency.auditing.settings import AuditSettings
from lucency.auditing.words import describe_audit

__all__ = ["AuditSettings", "audit_model", "describe_audit"]
