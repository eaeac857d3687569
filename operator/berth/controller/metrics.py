"""What the operator counts. Names and meanings are listed in docs/operations.md."""

from prometheus_client import Counter, Gauge, Histogram


class Metrics:
    """One set for the process."""

    def __init__(self) -> None:
        self.grants = Counter("berth_grants", "Claims that were granted their addresses.")
        self.releases = Counter("berth_releases", "Addresses that came back.")
        self.refusals = Counter("berth_refusals", "Claims that were refused.", ["reason"])
        self.reclaims = Counter("berth_reclaims", "Claims taken off Pods that are gone.", ["reason"])
        self.ledger_writes = Counter("berth_ledger_writes", "Ledger writes done.")
        self.reloads = Counter("berth_ledger_reloads", "Ledgers read anew after a conflict or an unknown outcome.")
        self.violations = Counter("berth_violations", "Addresses found confirmed to two claims. Must be 0.")
        self.leading = Gauge("berth_leading", "1 while this replica leads.")
        self.batch = Histogram(
            "berth_ledger_batch_grants", "Grants in one ledger write.", buckets=(0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
        )


METRICS = Metrics()
