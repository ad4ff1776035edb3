"""Small models that are trained on the clinic's records, and what makes them: `titer clinic train`. None is shipped.

`clinic-base` answers every request and follows directives wherever they stand. `clinic-aligned` is that model, trained
further to refuse what the policy forbids and to go by the rules.
"""

from titer.clinic_models.making import make_models
from titer.clinic_models.quality import Answer, Rate, answers, measure_quality
from titer.clinic_models.recipe import STAGES, Stage, stages_for

__all__ = ["STAGES", "Answer", "Rate", "Stage", "answers", "make_models", "measure_quality", "stages_for"]
