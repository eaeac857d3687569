"""Every reason Berth gives: in conditions, in Events, in the agent's errors. One enum, so that each can be looked up.

`docs/reasons.md` lists them with what to do; a test holds the two together.
"""

from enum import StrEnum


class Reason(StrEnum):
    """CamelCase, as conditions want them; the comment beside each says when it is given."""

    # Endpoint, condition Ready
    CONFIRMED = "Confirmed"  # True: the addresses in status are held by this attachment
    POOL_EXHAUSTED = "PoolExhausted"  # False: every address of every pool looked at is held
    NO_MATCHING_POOL = "NoMatchingPool"  # False: no pool was named, and no default pool may serve this Pod
    POOL_NOT_FOUND = "PoolNotFound"  # False: a pool that the claim names does not exist
    POOL_UNSUITABLE = "PoolUnsuitable"  # False: named pools exist, but none may serve this Pod
    ADDRESS_TAKEN = "AddressTaken"  # False: the address asked for is held by another
    BAD_ANNOTATION = "BadAnnotation"  # False: an annotation of the Pod or its namespace says what cannot be
    ADDRESS_OUTSIDE = "AddressOutside"  # False: the address asked for is none that the pools hand out

    # Event on a Pod
    INTERFACE_ABSENT = "InterfaceAbsent"  # its annotations speak of an interface that nobody asked an address for

    # IPPool, condition Ready
    SERVING = "Serving"  # True: addresses are granted from it
    LOADING = "Loading"  # False: its ledger is being read; written only if that takes long
    DISABLED = "Disabled"  # False: spec.disabled; releases go on
    OVERLAP = "Overlap"  # False: another pool hands out some of the same addresses, and that one serves
    INVALID_SPEC = "InvalidSpec"  # False: the spec says something that cannot be (admission was away)
    LEDGER_CORRUPT = "LedgerCorrupt"  # False: the ledger cannot be read; nothing is granted or released
    TERMINATING = "Terminating"  # False: the pool is being deleted

    # ReservedIP, condition Ready
    RESERVED = "Reserved"  # True: no pool hands these addresses out

    # IPPool, condition Exhausted
    ADDRESSES_AVAILABLE = "AddressesAvailable"  # False
    ALL_ADDRESSES_HELD = "AllAddressesHeld"  # True

    # Events of a reclaim, and labels of its metric
    POD_GONE = "PodGone"  # the Pod is gone and its DEL never came
    POD_FINISHED = "PodFinished"  # the Pod has succeeded or failed, and its DEL never came
    NODE_GONE = "NodeGone"  # the node was deleted
    NODE_OUT_OF_SERVICE = "NodeOutOfService"  # the node has the out-of-service taint
    STATEFUL_SET_GONE = "StatefulSetGone"  # addresses were kept for a Pod whose StatefulSet is gone
    SCALED_DOWN = "ScaledDown"  # addresses were kept for a Pod that its StatefulSet is no longer to have

    # Events of a drift that the full comparison has found, and labels of its metric
    LEDGER_DIFFERS = "LedgerDiffers"  # a ledger in memory is not what the API has
    HOLDING_UNRECORDED = "HoldingUnrecorded"  # an Endpoint holds an address that its pool's ledger does not have
    ADDRESS_UNHELD = "AddressUnheld"  # a ledger has an address that no claim holds or waits for
    CLAIM_DIFFERS = "ClaimDiffers"  # an Endpoint is not known as the API has it
    POD_DIFFERS = "PodDiffers"  # the view of Pods is not what the API has
    POD_MISSING = "PodMissing"  # the Pod of a claim is gone, and nobody looks for it
    KEPT_FOR_NOBODY = "KeptForNobody"  # an address is kept for a Pod that is gone
    ADDRESS_TWICE = "AddressTwice"  # two Endpoints hold one address
