"""What the operator counts. Names and meanings are listed in docs/operations.md."""

from prometheus_client import Counter, Gauge, Histogram


class Metrics:
    """One set for the process."""

    def __init__(self) -> None:
        self.grants = Counter("berth_grants", "Claims that were granted their addresses.")
        self.releases = Counter("berth_releases", "Addresses that came back.")
        self.refusals = Counter("berth_refusals", "Claims that were refused.", ["reason"])
        self.reclaims = Counter("berth_reclaims", "Claims taken off Pods that are gone.", ["reason"])
        self.returns = Counter(
            "berth_statefulset_returns",
            "Pods of StatefulSets that came again, with the same address or another.",
            ["address"],
        )
        self.parked = Gauge("berth_parked_claims", "Claims without a container, kept for a StatefulSet's Pod.")
        self.ledger_writes = Counter("berth_ledger_writes", "Ledger writes done.")
        self.reloads = Counter("berth_ledger_reloads", "Ledgers read anew after a conflict or an unknown outcome.")
        self.violations = Counter("berth_violations", "Addresses that two Endpoints held at one time. Must be 0.")
        self.drift = Counter("berth_drift", "Found by the full comparison: memory is not what the API has.", ["kind"])
        self.rewinds = Counter("berth_rewinds", "Terms ended because the API's history was another: a restore.")
        self.reassertions_refused = Counter(
            "berth_reassertions_refused", "Claims asserted again whose address somebody else has."
        )
        self.leading = Gauge("berth_leading", "1 while this replica leads.")
        self.batch = Histogram(
            "berth_ledger_batch_grants", "Grants in one ledger write.", buckets=(0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
        )


METRICS = Metrics()
