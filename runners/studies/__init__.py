"""The studies: for each question a module with what varies and what is drawn, a worksheet and a picture.

A module opens with the question, and has `MINUTES`, how long it takes on two cores, quick and in full; `runs(quick)`,
the runs by the names that tables give them; and `answer(made, quick)`, which draws and concludes from finished runs.
"""

from types import ModuleType

from runners.studies import (
    annealing,
    balance,
    constraint,
    data_size,
    critic_steps,
    generator_losses,
    gradient_estimators,
    inner_updates,
    local_rules,
    observation_variance,
    optimisers,
    rate_and_distortion,
    sequences,
    temperature,
    two_latents,
)
from runners.studies import annealing, balance, constraint, inner_updates, rate_and_distortion, stopping
from runners.studies import annealing, balance, constraint, inner_updates, rate_and_distortion, samples, stopping
    inversion,
    samples,
    stopping,

__all__ = ["STUDIES"]

STUDIES: dict[str, ModuleType] = {
    "q1": local_rules,
    "q2": inner_updates,
    "q3": data_size,
    "q5": annealing,
    "q6": constraint,
    "q7": generator_losses,
    "q8": balance,
    "q10": observation_variance,
    "q11": temperature,
    "q9": critic_steps,
    "q12": rate_and_distortion,
    "q15": sequences,
    "q16": two_latents,
    "q18": optimisers,
    "q19": gradient_estimators,
    "q13": inversion,
    "q14": samples,
    "q17": stopping,
}
"""By the courses' numbers."""
