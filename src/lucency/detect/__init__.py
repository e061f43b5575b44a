"""Finding backdoors without the ledger: nothing here may import `lucency.attacks`."""
