"""The operator: kopf handlers, the ledger's commit loop, confirmations, reclaim, leadership."""
