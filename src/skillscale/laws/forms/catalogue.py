"""All laws, keyed by their registered name."""

from skillscale.laws.forms.competition import CapacityCompetition
from skillscale.laws.forms.mixture import AdditiveMixture, EffectiveData, JointMixture, Separable, SeparableTransient
from skillscale.laws.forms.nd import Chinchilla, Coupled, Drifting, Farseer, Law

CHINCHILLA = Chinchilla()
_ALL: tuple[Law, ...] = (
    CHINCHILLA,
    Coupled(),
    Drifting(),
    Farseer(),
    EffectiveData(),
    AdditiveMixture(),
    JointMixture(),
    Separable(),
    SeparableTransient(),
    CapacityCompetition(),
)
LAWS: dict[str, Law] = {law.name: law for law in _ALL}
