"""Scanning a training set for poison."""

from lucency.scanning.run import scan_data
from lucency.scanning.settings import ScanSettings
from lucency.scanning.words import describe_scan

__all__ = ["ScanSettings", "describe_scan", "scan_data"]
