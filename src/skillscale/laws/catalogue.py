"""The laws there are, by name: one line each."""

from skillscale.laws.competition import CapacityCompetition
from skillscale.laws.forms import Chinchilla, Coupled, Drifting, Farseer, Law
from skillscale.laws.mixtures import AdditiveMixture, EffectiveData, JointMixture, Separable, SeparableTransient

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
