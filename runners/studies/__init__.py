"""The studies: for each question a module with what varies and what is drawn, a worksheet and a picture.

A module opens with the question, and has `MINUTES`, how long it takes on one core, quick and in full; `runs(quick)`,
the runs by the names that tables give them; and `answer(made, quick)`, which draws and concludes from finished
runs. Without those that `MAY_DIVERGE` names there still is an answer: that they left the finite numbers.
"""

from types import ModuleType

from runners.studies import (
    amortization,
    annealing,
    balance,
    constraint,
    critic_steps,
    data_size,
    generator_losses,
    gradient_estimators,
    inner_updates,
    inversion,
    local_rules,
    observation_variance,
    optimisers,
    rate_and_distortion,
    samples,
    sequences,
    stopping,
    temperature,
    training,
    two_latents,
)

__all__ = ["STUDIES"]

STUDIES: dict[str, ModuleType] = {
    "q1": local_rules,
    "q2": inner_updates,
    "q3": data_size,
    "q4": amortization,
    "q5": annealing,
    "q6": constraint,
    "q7": generator_losses,
    "q8": balance,
    "q9": critic_steps,
    "q10": observation_variance,
    "q11": temperature,
    "q12": rate_and_distortion,
    "q13": inversion,
    "q14": samples,
    "q15": sequences,
    "q16": two_latents,
    "q17": stopping,
    "q18": optimisers,
    "q19": gradient_estimators,
    "q20": training,
}
"""By the courses' numbers."""
