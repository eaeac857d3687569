"""Conditions as metav1 has them."""

from pydantic import BaseModel, ConfigDict, Field

from berth.core.reasons import Reason


class Wire(BaseModel):
    """Base of all models: camelCase outside, snake_case inside; unknown fields are ignored, as the API may grow."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")


class Condition(Wire):
    type: str
    status: str
    reason: str
    message: str = ""
    observed_generation: int | None = Field(None, alias="observedGeneration")
    last_transition_time: str = Field("", alias="lastTransitionTime")


def condition(
    kind: str,
    status: bool,
    reason: Reason,
    message: str,
    generation: int | None,
    now: str,
    before: tuple[Condition, ...],
) -> Condition:
    """A condition for today; its transition time moves only when its status does (api-conventions)."""
    said = "True" if status else "False"
    old = next((each for each in before if each.type == kind), None)
    since = old.last_transition_time if old is not None and old.status == said else now
    return Condition(
        type=kind,
        status=said,
        reason=reason.value,
        message=message,
        observedGeneration=generation,
        lastTransitionTime=since or now,
    )
