"""`lucency zoo`: clean and backdoored models whose truth is known, to measure audits on."""

from lucency.zoo.build import build_zoo, describe_zoo
from lucency.zoo.record import Member, ZooReport
from lucency.zoo.settings import ZooSettings

__all__ = ["Member", "ZooReport", "ZooSettings", "build_zoo", "describe_zoo"]
