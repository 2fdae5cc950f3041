"""Every combination of model, guide, family and objective runs, or is refused in one line."""

import itertools

import pytest
import small

from guides import Refinement
from ppl_models import UsageError
from runners.assembly import objective_of, pair_of
from runners.data import DataSet
from runners.fit import Fit
from runners.options import FAMILIES, GUIDES, MODELS, NEEDED, check_options, parser
from runners.presets import DEFAULTS, PRESETS

OBJECTIVES = ("elbo", "annealed", "beta", "constrained", "iwae")
RUNS = {
    (model, guide, family, objective)
    for model, guide, family, objective in itertools.product(MODELS, GUIDES, FAMILIES, OBJECTIVES)
    if not (model == "ladder" and (guide != "amortized" or family != "diagonal"))
    and not (family == "echo" and (guide != "amortized" or objective == "iwae"))
}


@pytest.fixture(scope="module")
def data() -> DataSet:
    return small.large_data_set(train=40)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("guide", GUIDES)
def test_the_whole_grid_for_two_steps(model: str, guide: str, data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.fit.REPORT", Refinement(steps=2))
    for family, objective in itertools.product(FAMILIES, OBJECTIVES):
        chosen = {"model": model, "guide": guide, "family": family, "objective": objective}
        small_nets = {"hidden": [8], "latents": 3, "batch": 8, "local_steps": 2, "seed": 0}
        options = DEFAULTS | small_nets | chosen | {"conditional": model != "ladder" and objective == "beta"}
        where = " ".join(chosen.values())
        if (model, guide, family, objective) not in RUNS:
            with pytest.raises(UsageError) as refused:
                check_options(chosen, options)
            assert "\n" not in str(refused.value), where
            continue
        check_options(chosen, options)
        fit = Fit(*pair_of(options, data), data, objective_of(options), steps=2, batch=8, progress=False).run()
        found = fit.result(images=4, updates=2)
        assert fit.history.step == 2
        assert found["test"]["elbo"] < 0, where


def test_every_option_of_the_defaults_is_on_the_command_line_and_the_other_way_round() -> None:
    actions = {action.dest for action in parser("page\n\nlines")._actions} - {"help", "out", "resume"}
    assert actions == set(DEFAULTS)
    needed = {name for names, _, _ in NEEDED for name in names}
    assert needed <= actions
    for preset in PRESETS.values():
        assert preset.keys() <= actions
